//! One child process and the socket to it: a process that this one starts, or
//! one that a service manager starts for each connection to its socket.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use zeroize::{Zeroize, Zeroizing};

use super::DeviceConfig;
use super::relay::{self, Mask, Masked};
use crate::hsm::child::{LOGIN_GRACE, MODE};
use crate::hsm::frame;
use crate::hsm::message::{
    Answer, Call, Cure, Fault, FaultKind, HELLO, Open, Pin, Reply, Request, TokenIdentity,
};

/// How long a service manager may take to accept.
const CONNECT: Duration = Duration::from_secs(5);

/// A running child. It is not killed when this is dropped: it leaves by
/// itself when the socket closes, after the end of a login under way.
#[derive(Debug)]
pub(super) struct Process {
    /// None where a service manager started it.
    child: Option<Child>,
    socket: UnixStream,
    input: Vec<u8>,
    /// Holds the PIN for an instant.
    output: Zeroizing<Vec<u8>>,
    /// Of our own child.
    pub(super) pid: Option<u32>,
    /// Keeps the PIN out of what the child says.
    masked: Masked,
}

impl Process {
    /// A process that knows nothing yet: no module, no PIN.
    pub(super) async fn start(config: &DeviceConfig) -> io::Result<Self> {
        match &config.socket {
            None => Self::spawn(config),
            Some(path) => Self::connect(path).await,
        }
    }

    /// At the socket of a service manager, which starts a process for each
    /// connection.
    async fn connect(path: &Path) -> io::Result<Self> {
        let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let connecting = tokio::time::timeout(CONNECT, UnixStream::connect(path));
        let socket = match connecting.await {
            Ok(connected) => connected.map_err(at)?,
            Err(_elapsed) => return Err(at(io::ErrorKind::TimedOut.into())),
        };
        // The PIN goes there: not to whoever happens to listen.
        let owner = socket.peer_cred().map_err(at)?.uid();
        let ours = rustix::process::geteuid().as_raw();
        if owner != 0 && owner != ours {
            return Err(at(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("user {owner} listens there, and neither root nor user {ours}"),
            )));
        }
        Self::greeting(None, socket, None, Masked::default())
    }

    fn greeting(
        child: Option<Child>,
        socket: UnixStream,
        pid: Option<u32>,
        masked: Masked,
    ) -> io::Result<Self> {
        let mut output = Zeroizing::default();
        frame::encode(HELLO, &mut output)?;
        Ok(Self {
            child,
            socket,
            input: Vec::new(),
            output,
            pid,
            masked,
        })
    }

    fn spawn(config: &DeviceConfig) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(program(config)?);
        command
            .arg0("sealkeeper")
            .arg(MODE)
            .arg(&config.name)
            .env_clear()
            .envs(config.env.iter().map(|(name, value)| (name, value)))
            // Ctrl-C at a terminal is for the daemon, which still has to
            // answer whom it keeps waiting.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let pid = child
            .id()
            .ok_or_else(|| io::Error::other("it ended at once"))?;
        let masked = Masked::default();
        if let Some(stderr) = child.stderr.take() {
            let relay = relay::run(config.name.clone(), pid, stderr, Arc::clone(&masked));
            tokio::spawn(relay);
        }
        Self::greeting(Some(child), UnixStream::from_std(ours)?, Some(pid), masked)
    }

    /// Has the child load the module, find the token and log in.
    pub(super) async fn open(
        &mut self,
        config: &DeviceConfig,
        serial: Option<&str>,
        pin: Pin,
    ) -> Result<TokenIdentity, Fault> {
        *self.masked.lock().unwrap_or_else(PoisonError::into_inner) = Mask::of(&pin);
        let open = Open {
            module: config.module.clone(),
            token: config.token.clone(),
            expected_serial: serial.map(str::to_owned),
            pin,
            pin_marker: config.pin_marker.clone(),
            device: config.name.clone(),
            workers: config.workers,
            require_local: config.require_local,
        };
        let request = Request {
            id: 0,
            call: Call::Open(Box::new(open)),
        };
        match tokio::time::timeout(config.open_timeout, self.exchange(&request)).await {
            Err(_elapsed) => Err(Fault::new(
                FaultKind::Unavailable,
                Cure::Reopen,
                format!("it did not open within {:?}", config.open_timeout),
            )),
            Ok(Err(e)) => Err(Fault::new(
                FaultKind::Unavailable,
                Cure::Restart,
                format!("its process ended while opening it: {e}"),
            )),
            Ok(Ok(Reply { result, .. })) => match result? {
                Answer::Opened(identity) => Ok(identity),
                _ => Err(Fault::new(
                    FaultKind::Defect,
                    Cure::Restart,
                    "its process answered something else than asked",
                )),
            },
        }
    }

    async fn exchange(&mut self, request: &Request) -> io::Result<Reply> {
        self.queue(&[request])?;
        while self.has_output() {
            self.socket.writable().await?;
            self.flush()?;
        }
        self.output.zeroize();
        let mut replies = Vec::new();
        while replies.is_empty() {
            self.socket.readable().await?;
            self.receive(&mut replies)?;
        }
        Ok(replies.swap_remove(0))
    }

    /// Puts a batch on its way; [`Self::flush`] sends it.
    pub(super) fn queue(&mut self, batch: &[&Request]) -> io::Result<()> {
        frame::encode(batch, &mut self.output)
    }

    /// Whether something waits to be sent.
    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Sends what the socket takes now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.socket.try_write(&self.output) {
                Ok(n) if n == self.output.len() => self.output.clear(),
                Ok(n) => drop(self.output.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The socket, to wait on.
    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Takes all whole replies that have come. The end of the stream is an
    /// error: the child never ends it while we hold our side.
    pub(super) fn receive(&mut self, replies: &mut Vec<Reply>) -> io::Result<()> {
        loop {
            match self.socket.try_read_buf(&mut self.input) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
            while let Some(batch) = frame::take::<Vec<Reply>>(&mut self.input)? {
                replies.extend(batch);
            }
        }
        Ok(())
    }

    /// Closes the socket and waits for the child to leave; kills it where it
    /// does not. Says how it ended.
    pub(super) async fn leave(self) -> String {
        self.part(LOGIN_GRACE + Duration::from_secs(1)).await
    }

    /// Lets a child that was logged in leave, without much patience: no login
    /// is cut off. Says how it ended.
    pub(super) async fn end(self) -> String {
        self.part(Duration::from_millis(200)).await
    }

    /// Ends a child that hangs; it is logged in already. One that is not ours
    /// leaves as soon as its connection is closed, whatever it hangs in.
    pub(super) async fn kill(self) -> String {
        match self.child {
            Some(child) => kill(child).await,
            None => self.part(Duration::from_millis(200)).await,
        }
    }

    async fn part(self, patience: Duration) -> String {
        let Some(mut child) = self.child else {
            return hang_up(self.socket, patience).await;
        };
        drop(self.socket);
        match tokio::time::timeout(patience, child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(e)) => e.to_string(),
            Err(_elapsed) => kill(child).await,
        }
    }
}

/// Closes our side of a connection, and waits for the end of the other: then
/// its process has left.
async fn hang_up(mut socket: UnixStream, patience: Duration) -> String {
    let parting = async {
        socket.shutdown().await?;
        tokio::io::copy(&mut socket, &mut tokio::io::sink()).await
    };
    match tokio::time::timeout(patience, parting).await {
        Ok(Ok(_)) => "it left".into(),
        Ok(Err(e)) => e.to_string(),
        Err(_elapsed) => "it has not left yet".into(),
    }
}

async fn kill(mut child: Child) -> String {
    // Fails only for a child that has ended.
    let _ = child.start_kill();
    // One that hangs in the kernel cannot be waited for; the runtime reaps it
    // when it ends.
    match tokio::time::timeout(Duration::from_secs(1), child.wait()).await {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(e)) => e.to_string(),
        Err(_elapsed) => "it hangs in the kernel".into(),
    }
}

/// This very program, even where its file was replaced by an upgrade since
/// the start: daemon and child must speak the same messages.
fn program(config: &DeviceConfig) -> io::Result<PathBuf> {
    if let Some(program) = &config.program {
        return Ok(program.clone());
    }
    let this = Path::new("/proc/self/exe");
    if this.exists() {
        Ok(this.to_owned())
    } else {
        std::env::current_exe()
    }
}
