//! The control thread: opens the device, then makes, finds and destroys keys
//! on a session that stays open for the life of the process. When the last
//! session of a process closes, its login goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;

use cryptoki::session::Session;

use super::outbox::Outbox;
use super::queue::Queue;
use super::{LoginGate, complain};
use crate::hsm::message::{
    Answer, Call, Cure, Fault, FaultKind, Open, Reply, Request, TokenIdentity,
};
use crate::hsm::pkcs11::{self, Signer, Token, Wanted};

/// Takes control requests one at a time.
#[derive(Debug)]
pub(super) struct Control {
    outbox: Arc<Outbox>,
    queue: Arc<Queue>,
    gate: Arc<LoginGate>,
    /// Counts the keys that came and went, for the workers' caches.
    changes: Arc<AtomicU64>,
    device: Option<Device>,
}

#[derive(Debug)]
struct Device {
    token: Arc<Token>,
    session: Session,
    require_local: bool,
}

impl Control {
    pub(super) fn new(outbox: Arc<Outbox>, queue: Arc<Queue>, gate: Arc<LoginGate>) -> Self {
        Self {
            outbox,
            queue,
            gate,
            changes: Arc::default(),
            device: None,
        }
    }

    /// Runs until the reader ends.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        for request in requests {
            let result = self.answer(request.call);
            self.outbox.send(Reply {
                id: request.id,
                result,
            });
        }
    }

    fn answer(&mut self, call: Call) -> Result<Answer, Fault> {
        if let Call::Open(open) = call {
            return self.open(&open).map(Answer::Opened);
        }
        let device = self
            .device
            .as_mut()
            .ok_or_else(|| Fault::new(FaultKind::Defect, Cure::Never, "the device is not open"))?;
        let result = device.cured(&call);
        if matches!(
            call,
            Call::Generate { .. } | Call::Destroy { .. } | Call::Adopt(_)
        ) {
            self.changes.fetch_add(1, Ordering::Release);
        }
        result
    }

    fn open(&mut self, open: &Open) -> Result<TokenIdentity, Fault> {
        let token = Arc::new(Token::open(open)?);
        let session = token.session()?;
        self.gate
            .during(|| pkcs11::log_in(&token, &session, open))?;
        token.check(&session)?;
        for n in 0..open.workers.max(1) {
            let signer = match Signer::new(Arc::clone(&token), Arc::clone(&self.changes)) {
                Ok(signer) => signer,
                // The token has no more sessions to give: fewer will do.
                Err(fault) if n > 0 && fault.cure == Cure::TryAgain => {
                    complain(&format!("{n} of {} workers: {fault}", open.workers));
                    break;
                }
                Err(fault) => return Err(fault),
            };
            let queue = Arc::clone(&self.queue);
            let outbox = Arc::clone(&self.outbox);
            thread::spawn(move || work(signer, &queue, &outbox));
        }
        let identity = token.identity.clone();
        self.device = Some(Device {
            token,
            session,
            require_local: open.require_local,
        });
        Ok(identity)
    }
}

impl Device {
    /// Carries a call out, and once more where a new session or another
    /// search cures what was wrong. Every call here can be repeated.
    fn cured(&mut self, call: &Call) -> Result<Answer, Fault> {
        let mut again = true;
        loop {
            let fault = match self.carry_out(call) {
                Ok(answer) => {
                    self.token.is_well();
                    return Ok(answer);
                }
                Err(fault) => self.token.diagnose(&self.session, fault),
            };
            match fault.cure {
                Cure::NewSession if again => self.session = self.token.session()?,
                Cure::FindAgain if again => {}
                _ => return Err(fault),
            }
            again = false;
        }
    }

    fn carry_out(&self, call: &Call) -> Result<Answer, Fault> {
        let (token, session) = (&*self.token, &self.session);
        match *call {
            Call::Generate {
                object,
                key_type,
                algorithm,
            } => {
                let wanted = Wanted {
                    object,
                    key_type,
                    algorithm,
                    require_local: self.require_local,
                };
                pkcs11::generate(token, session, &wanted).map(Answer::Generated)
            }
            Call::Find { object } => {
                pkcs11::find(token, session, object, self.require_local).map(Answer::Found)
            }
            Call::List(pairs) => {
                pkcs11::list(token, session, pairs, self.require_local).map(Answer::Listed)
            }
            Call::Adopt(ref adopt) => {
                let local = self.require_local;
                match &adopt.into {
                    None => pkcs11::look(token, session, adopt, local).map(Answer::Adoptable),
                    Some(into) => {
                        pkcs11::adopt(token, session, adopt, into, local).map(Answer::Generated)
                    }
                }
            }
            Call::Destroy { object } => {
                pkcs11::destroy(token, session, object).map(|()| Answer::Destroyed)
            }
            Call::Health => token.check(session).map(|()| Answer::Healthy),
            Call::Supports {
                key_type,
                algorithm,
            } => {
                token.mechanisms.generator(key_type)?;
                token.mechanisms.plan(algorithm).map(|_| Answer::Supported)
            }
            Call::Open(_) | Call::Sign(_) => Err(Fault::new(
                FaultKind::Defect,
                Cure::Never,
                "this is no call for the control session",
            )),
        }
    }
}

fn work(mut signer: Signer, queue: &Queue, outbox: &Outbox) -> ! {
    loop {
        let job = queue.pop();
        let result = if job.expired() {
            Err(Fault::new(
                FaultKind::Expired,
                Cure::Never,
                "its deadline passed before its turn came",
            ))
        } else {
            signer.sign(&job.sign).map(Answer::Signed)
        };
        outbox.send(Reply { id: job.id, result });
    }
}
