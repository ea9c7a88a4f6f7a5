//! Devices: which token, through which module, with the PIN from where.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::check::Check;
use super::raw::{self, Text};
use super::uri::{self, TokenUri};
use crate::hsm::pin_marker;
use crate::hsm::pin_source::PinError;
use crate::hsm::{DeviceConfig, PinSource, TokenSelector};
use crate::time::Span;

/// More than any HSM gains from.
const MOST_WORKERS: i64 = 1024;
const LONGEST_QUEUE: i64 = 1_000_000;

/// A device, checked. Neither module nor PIN was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name in the configuration.
    pub name: String,
    /// The PKCS#11 module. Absolute.
    pub module: PathBuf,
    /// Which of its tokens: by label, serial number, or both.
    pub token: TokenSelector,
    /// Where the PIN is.
    pub pin: PinSource,
    /// How many sessions sign at the same time.
    pub workers: u16,
    /// How many signatures may wait for it.
    pub queue: usize,
    /// How long one may wait for its turn.
    pub max_wait: Span,
    /// When a signature that does not come counts as a hang.
    pub call_timeout: Span,
    /// The same for generating a key; some devices take minutes.
    pub generate_timeout: Span,
    /// The same for loading the module, finding the token and logging in.
    pub open_timeout: Span,
    /// Whether the token must say that it generated each key itself.
    pub require_local: bool,
    /// The environment of the process that holds the module: this, and no
    /// more.
    pub env: BTreeMap<String, String>,
    /// Where a service manager starts that process; the agent does where there
    /// is none.
    pub socket: Option<PathBuf>,
}

/// The file below `state_dir` that lets a wrong PIN be tried once, across
/// restarts: while it stands, nobody logs in to this device.
#[must_use]
pub fn pin_marker(state_dir: &Path, device: &str) -> PathBuf {
    state_dir.join(format!("{device}{}", pin_marker::SUFFIX))
}

impl Device {
    /// The file that lets a wrong PIN be tried once.
    #[must_use]
    pub fn pin_marker(&self, state_dir: &Path) -> PathBuf {
        pin_marker(state_dir, &self.name)
    }

    /// What the port needs. Asks for the PIN where somebody must be asked.
    ///
    /// # Errors
    /// When the PIN's source is not there.
    pub fn to_port(&self, state_dir: &Path) -> Result<DeviceConfig, PinError> {
        let marker = self.pin_marker(state_dir);
        let pin = self.pin.supply(&self.name)?;
        let mut port = DeviceConfig::new(&self.name, &self.module, self.token.clone(), pin, marker);
        let env = self.env.iter();
        port.env = env
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .collect();
        port.workers = self.workers;
        port.queue = self.queue;
        port.max_wait = self.max_wait.to_duration();
        port.call_timeout = self.call_timeout.to_duration();
        port.generate_timeout = self.generate_timeout.to_duration();
        port.open_timeout = self.open_timeout.to_duration();
        port.require_local = self.require_local;
        port.socket.clone_from(&self.socket);
        Ok(port)
    }
}

pub(super) fn check(name: &Text, raw: &raw::Device, check: &mut Check<'_>) -> Option<Device> {
    let field = |field: &str| format!("device.{}.{field}", name.get_ref());
    let is_pkcs11 = raw.kind.get_ref() == "pkcs11";
    if !is_pkcs11 {
        check.say(
            raw.kind.span(),
            format!(
                "{}: expected \"pkcs11\", got {:?}",
                field("kind"),
                raw.kind.get_ref()
            ),
            "every HSM with a PKCS#11 module is of this kind",
        );
    }
    let from_uri = match raw.uri.as_ref().map(|uri| uri::parse(uri.get_ref())) {
        None => TokenUri::default(),
        Some(Ok(token)) => token,
        Some(Err(bad)) => {
            let span = raw.uri.as_ref().map_or(name.span(), Text::span);
            check.say(span, format!("{}: {}", field("uri"), bad.message), bad.hint);
            return None;
        }
    };
    let module = module(name, raw, &from_uri, check);
    let token = token(name, raw, &from_uri, check);
    let pin = pin(name, raw, &from_uri, check);
    let workers = check.number(raw.workers.as_ref(), &field("workers"), 1..=MOST_WORKERS, 2);
    let queue = check.number(raw.queue.as_ref(), &field("queue"), 1..=LONGEST_QUEUE, 1024);
    let max_wait = max_wait(raw.max_wait.as_ref(), &field("max_wait"), check);
    let call_timeout = patience(raw.call_timeout.as_ref(), &field("call_timeout"), 5, check);
    let generate_timeout = patience(
        raw.generate_timeout.as_ref(),
        &field("generate_timeout"),
        120,
        check,
    );
    let open_timeout = patience(raw.open_timeout.as_ref(), &field("open_timeout"), 30, check);
    let env = env(&field("env"), &raw.env, check);
    let socket = socket(&field("socket"), raw, check)?;
    Some(Device {
        name: name.get_ref().clone(),
        module: module?,
        token: token?,
        pin: pin?,
        workers: workers?,
        queue: queue?,
        max_wait: max_wait?,
        call_timeout: call_timeout?,
        generate_timeout: generate_timeout?,
        open_timeout: open_timeout?,
        require_local: raw.require_local.unwrap_or(true),
        env: env?,
        socket,
    })
    .filter(|_| is_pkcs11)
}

/// A value that may stand in its own line or in the URI, but not in both.
fn either<'a>(
    own: Option<&'a Text>,
    from_uri: Option<&'a String>,
    field: &str,
    check: &mut Check<'_>,
) -> Option<&'a str> {
    match (own, from_uri) {
        (Some(own), Some(_)) => {
            check.say(
                own.span(),
                format!("{field}: the uri says this too"),
                "say it once",
            );
            Some(own.get_ref())
        }
        (Some(own), None) => Some(own.get_ref()),
        (None, from_uri) => from_uri.map(String::as_str),
    }
}

fn module(
    name: &Text,
    raw: &raw::Device,
    uri: &TokenUri,
    check: &mut Check<'_>,
) -> Option<PathBuf> {
    let field = format!("device.{}.module", name.get_ref());
    let Some(module) = either(raw.module.as_ref(), uri.module.as_ref(), &field, check) else {
        check.say(
            name.span(),
            format!("{field}: expected the path of a PKCS#11 module, got none"),
            "module = \"/usr/lib/softhsm/libsofthsm2.so\", or module-path=... in the uri",
        );
        return None;
    };
    // A bare name would be searched for in the library path, which others may
    // set; and what is relative to the file's folder is no library's place.
    if Path::new(module).is_absolute() {
        return Some(PathBuf::from(module));
    }
    let written = raw.module.as_ref().or(raw.uri.as_ref());
    check.say(
        written.map_or(name.span(), Text::span),
        format!("{field}: expected an absolute path, got {module:?}"),
        "the library that is loaded must not depend on a search path",
    );
    None
}

fn token(
    name: &Text,
    raw: &raw::Device,
    uri: &TokenUri,
    check: &mut Check<'_>,
) -> Option<TokenSelector> {
    let field = |field: &str| format!("device.{}.{field}", name.get_ref());
    let label = either(
        raw.token.as_ref(),
        uri.label.as_ref(),
        &field("token"),
        check,
    );
    let serial = either(
        raw.serial.as_ref(),
        uri.serial.as_ref(),
        &field("serial"),
        check,
    );
    // CK_TOKEN_INFO pads them with blanks to 32 and 16 bytes (PKCS#11 v3.1,
    // section 3.3).
    for (text, field, longest) in [
        (raw.token.as_ref(), field("token"), 32),
        (raw.serial.as_ref(), field("serial"), 16),
    ] {
        if let Some(text) = text
            && !(1..=longest).contains(&text.get_ref().len())
        {
            check.say(
                text.span(),
                format!(
                    "{field}: expected 1 to {longest} bytes, got {}",
                    text.get_ref().len()
                ),
                "no token has such a one; `softhsm2-util --show-slots` or the vendor's tool shows it",
            );
        }
    }
    if label.is_none() && serial.is_none() {
        check.say(
            name.span(),
            format!(
                "device.{}: expected token or serial, got neither",
                name.get_ref()
            ),
            "token = \"LABEL\" names the token; \"the first one\" is another after the next reboot",
        );
        return None;
    }
    Some(TokenSelector {
        label: label.map(str::to_owned),
        serial: serial.map(str::to_owned),
    })
}

const PIN_SHAPES: &str = "pin = { file = \"/path/to/pin\" }, { credential = \"NAME\" } (systemd), { prompt = true }, or { env = \"NAME\" }";

/// Nothing that is said here repeats a value: it may be the PIN.
fn pin(name: &Text, raw: &raw::Device, uri: &TokenUri, check: &mut Check<'_>) -> Option<PinSource> {
    let field = format!("device.{}.pin", name.get_ref());
    let (given, uri_file) = match (&raw.pin, &uri.pin_file) {
        (Some(given), None) => (given, None),
        (None, Some(file)) => return Some(PinSource::File(PathBuf::from(file))),
        (Some(given), Some(_)) => (given, Some("the uri says this too")),
        (None, None) => {
            check.say(
                name.span(),
                format!("{field}: expected where the PIN is, got nothing"),
                PIN_SHAPES,
            );
            return None;
        }
    };
    let mut refuse = |message: &str, hint: &str| {
        check.say(given.span(), format!("{field}: {message}"), hint);
        None
    };
    if let Some(twice) = uri_file {
        return refuse(twice, "say it once");
    }
    let toml::Value::Table(table) = given.get_ref() else {
        return refuse(
            "expected where the PIN is, got a value",
            "the PIN itself never stands here: pin = { file = \"/path/to/pin\" }; if it did, change it, since copies of this file may exist",
        );
    };
    let mut entries = table.iter();
    let (Some((source, value)), None) = (entries.next(), entries.next()) else {
        return refuse("expected exactly one source", PIN_SHAPES);
    };
    match (source.as_str(), value) {
        ("file", toml::Value::String(path)) if !path.is_empty() => {
            let path = Text::new(given.span(), path.clone());
            Some(PinSource::File(check.path(&path, &field)?))
        }
        ("credential", toml::Value::String(credential)) if is_file_name(credential) => {
            Some(PinSource::Credential(credential.clone()))
        }
        ("prompt", toml::Value::Boolean(true)) => Some(PinSource::Prompt),
        ("env", toml::Value::String(variable)) if is_variable(variable) => {
            Some(PinSource::Environment(variable.clone()))
        }
        ("file", _) => refuse("file: expected a path", PIN_SHAPES),
        ("credential", _) => refuse("credential: expected a plain file name", PIN_SHAPES),
        ("prompt", _) => refuse("prompt: expected true", PIN_SHAPES),
        ("env", _) => refuse("env: expected the name of a variable", PIN_SHAPES),
        _ => refuse("expected file, credential, prompt or env", PIN_SHAPES),
    }
}

pub(super) fn is_file_name(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '\0'])
}

fn is_variable(text: &str) -> bool {
    !text.is_empty() && !text.contains(['=', '\0'])
}

/// A timeout: at least long enough for a device to answer at all.
fn patience(
    text: Option<&Text>,
    field: &str,
    default_s: u32,
    check: &mut Check<'_>,
) -> Option<Span> {
    let least = Span::from_millis(100);
    let span = check.span_or(text, field, Span::from_secs(default_s))?;
    match text {
        Some(text) if span < least => {
            check.say(
                text.span(),
                format!("{field}: expected at least {least}, got {span}"),
                "a busy device would be taken for a hung one, and its process ended",
            );
            None
        }
        _ => Some(span),
    }
}

/// What a caller may be kept waiting for. With nothing, every second request
/// of a few that come together would be turned away.
fn max_wait(text: Option<&Text>, field: &str, check: &mut Check<'_>) -> Option<Span> {
    let (least, most) = (Span::from_millis(10), Span::from_secs(60));
    let span = check.span_or(text, field, Span::from_millis(250))?;
    match text {
        Some(text) if span < least || span > most => {
            check.say(
                text.span(),
                format!("{field}: expected {least} to {most}, got {span}"),
                "requests that come together wait for one another; who would wait for longer is told at once to come back",
            );
            None
        }
        _ => Some(span),
    }
}

/// Where the process of the device is started by somebody else. Its environment
/// is then somebody else's, too.
fn socket(field: &str, raw: &raw::Device, check: &mut Check<'_>) -> Option<Option<PathBuf>> {
    let Some(socket) = &raw.socket else {
        return Some(None);
    };
    if let Some(name) = raw.env.keys().next() {
        check.say(
            name.span(),
            format!("{field}: the process there has an environment of its own, and env is for one that the agent starts"),
            "Environment= of its unit holds what the module reads",
        );
        return None;
    }
    check.socket(socket, field).map(Some)
}

fn env(
    field: &str,
    raw: &BTreeMap<Text, Text>,
    check: &mut Check<'_>,
) -> Option<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    for (name, value) in raw {
        if !is_variable(name.get_ref()) || value.get_ref().contains('\0') {
            check.say(
                name.span(),
                format!("{field}: expected the name of a variable and its value"),
                "names have no =, and neither has a zero byte",
            );
            return None;
        }
        env.insert(name.get_ref().clone(), value.get_ref().clone());
    }
    Some(env)
}
