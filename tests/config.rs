//! The configuration file: what the example means, and what is said about
//! files that make no sense.

use std::path::{Path, PathBuf};
use std::{env, fs};

use sealkeeper::config::Config;

const FOLDER: &str = "/etc/sealkeeper";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn parse(text: &str) -> Result<Config, String> {
    let config = Config::parse(text, "sealkeeper.toml", Path::new(FOLDER));
    config.map_err(|invalid| invalid.to_string())
}

#[test]
fn the_example_loads_and_its_comments_are_the_defaults() {
    let path = top().join("hsm-config/sealkeeper.toml");
    let text = fs::read_to_string(&path).expect("the example");
    // `#setting = ...` is a setting at its default, `# words` is a comment.
    let is_setting = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    let spelt_out: Vec<_> = text
        .lines()
        .map(|line| if is_setting(line) { &line[1..] } else { line })
        .collect();
    assert!(text.lines().filter(|line| is_setting(line)).count() > 20);
    let short = parse(&text).expect("the example is good");
    let long = parse(&spelt_out.join("\n")).expect("the example is good with its defaults");
    assert_eq!(short, long);
    assert_eq!(short, Config::load(&path).expect("the file is the text"));
}

#[test]
fn relative_paths_start_from_the_files_folder() {
    let text = "
        state_dir = 'state'
        serve.signing_socket = 'sign.sock'
        [device.hsm]
        kind = 'pkcs11'
        module = '/m.so'
        token = 'lab'
        pin = { file = 'pin' }
        [key_set.main]
        issuer = 'https://login.example'
        device = 'hsm'
        track = [{ alg = 'Ed25519' }]
        eddsa_name = 'EdDSA'
    ";
    let config = parse(text).expect("a good configuration");
    let under = |name: &str| Path::new(FOLDER).join(name);
    assert_eq!(config.state_dir, under("state"));
    assert_eq!(config.serve.signing_socket, under("sign.sock"));
    assert_eq!(config.serve.well_known.as_deref(), Some("main"));
    let device = &config.devices["hsm"];
    let pin = sealkeeper::hsm::PinSource::File(under("pin"));
    assert_eq!(device.pin, pin);
    let (algorithm, _) = config.key_sets["main"].tracks[0];
    assert_eq!(algorithm, sealkeeper::jose::Algorithm::EdDsa);
    assert!(
        config.key_sets["main"].rules.rules().is_empty(),
        "no rule, no signature"
    );
}

#[test]
fn a_uri_says_the_same_as_its_parts() {
    let rest = "
        [key_set.main]
        issuer = 'https://login.example'
        device = 'hsm'
        track = [{ alg = 'ES256' }]
    ";
    let uri = "
        [device.hsm]
        kind = 'pkcs11'
        uri = 'pkcs11:token=my%20lab;serial=0a?module-path=/m.so&pin-source=file:/etc/pin'
    ";
    let parts = "
        [device.hsm]
        kind = 'pkcs11'
        module = '/m.so'
        token = 'my lab'
        serial = '0a'
        pin = { file = '/etc/pin' }
    ";
    let parse = |device: &str| parse(&format!("{device}{rest}")).expect("a good configuration");
    assert_eq!(parse(uri), parse(parts));
}

#[test]
fn every_invalid_example_says_what_is_wrong_and_where() {
    let folder = top().join("tests/config/invalid");
    let bless = env::var_os("SEALKEEPER_BLESS").is_some();
    let mut differ = Vec::new();
    let mut count = 0;
    for path in examples(&folder) {
        count += 1;
        let text = fs::read_to_string(&path).expect("an example");
        let name = path.file_name().expect("a file").to_string_lossy();
        let said = match Config::parse(&text, &name, Path::new(FOLDER)) {
            Ok(_) => panic!("{name}: expected mistakes, got a good configuration"),
            Err(invalid) => invalid.to_string(),
        };
        // Each mistake: what, where, the line, the caret, what to do.
        let mistakes = said.matches("error: ").count();
        assert!(mistakes > 0, "{name}: {said}");
        for part in [&format!("--> {name}:"), "^", "= hint: "] {
            assert!(
                said.matches(part).count() >= mistakes,
                "{name}: {part}\n{said}"
            );
        }
        let expected = path.with_extension("txt");
        if bless {
            fs::write(&expected, &said).expect("the message is written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            differ.push(format!("{}:\n{said}", expected.display()));
        }
    }
    assert!(count >= 10, "found only {count} examples");
    assert!(
        differ.is_empty(),
        "these messages changed; SEALKEEPER_BLESS=1 accepts them:\n\n{}",
        differ.join("\n")
    );
}

/// An agent starts without them, and then waits for ever: `config check` looks.
#[test]
fn roots_that_are_not_there_are_found_where_they_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sealkeeper.toml");
    let text = "
[device.hsm]
kind = 'pkcs11'
module = '/m.so'
token = 'lab'
pin = { file = 'pin' }
[key_set.main]
issuer = 'https://login.example'
device = 'hsm'
track = [{ alg = 'ES256' }]
observe = ['https://login.example/main/jwks.json']
observe_ca = 'roots.pem'
";
    fs::write(&path, text).expect("a file");
    let roots = folder.path().join("roots.pem");
    let said = || match Config::check_files(&path) {
        Ok(()) => String::new(),
        Err(e) => e.to_string(),
    };
    for (content, why) in [
        (None, "No such file"),
        (Some(""), "expected a certificate in PEM, got none"),
        (Some("roots"), "expected a certificate in PEM, got none"),
        (
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "roots.pem: ",
        ),
    ] {
        if let Some(content) = content {
            fs::write(&roots, content).expect("a file");
        }
        Config::load(&path).expect("an agent starts with it");
        let said = said();
        for part in [
            "error: key_set.main.observe_ca: ",
            why,
            "sealkeeper.toml:12:14",
            "12 | observe_ca = 'roots.pem'",
            "^^^^^^^^^^^",
            "= hint: a file of one or more certificates in PEM",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
    }
    let root = rcgen::generate_simple_self_signed(["login.example".to_owned()]).expect("a root");
    fs::write(&roots, root.cert.pem()).expect("a file");
    assert_eq!(said(), "");
}

fn examples(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder of examples");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an example").path())
        .collect();
    paths.retain(|path| path.extension() == Some("toml".as_ref()));
    paths.sort();
    paths
}

#[test]
fn a_password_in_an_address_is_never_shown() {
    let text = "
        [device.hsm]
        kind = 'pkcs11'
        module = '/m.so'
        token = 'lab'
        pin = { file = 'pin' }
        [key_set.main]
        issuer = 'https://login.example'
        device = 'hsm'
        track = [{ alg = 'ES256' }]
        observe = ['https://anna:271828@login.example/main/jwks.json']
    ";
    let said = parse(text).expect_err("a mistake");
    assert!(said.contains("expected no user or password"), "{said}");
    assert!(!said.contains("271828"), "{said}");
}

#[test]
fn a_pin_that_stands_in_the_file_is_never_shown() {
    let pin = "271828";
    for mistake in [
        format!("pin = '{pin}'"),
        format!("pin = {pin}"),
        format!("pin = {pin} {pin}"),
        format!("pin = ['{pin}']"),
        format!("pin = {{ value = '{pin}' }}"),
        format!("pin = {{ file = {pin} }}"),
        format!("pin = {{ env = '{pin}', prompt = true }}"),
        format!("pin_value = '{pin}'"),
        format!("user-pin = '{pin}'"),
        format!("PIN = '{pin}'"),
        format!("uri = 'pkcs11:token=a?pin-value={pin}'"),
        format!("uri = 'pkcs11:token=a?pin-source={pin}'"),
        format!("uri = 'pkcs11:token=a;pin-value={pin}'"),
        format!("uri = 'pkcs11:token=a?module-path=/m.so&pin-value={pin}&x=y'"),
    ] {
        let text = format!("[device.hsm]\nkind = 'pkcs11'\nmodule = '/m.so'\n{mistake}\n");
        let invalid = Config::parse(&text, "f", Path::new(FOLDER)).expect_err("a mistake");
        for shown in [format!("{invalid}"), format!("{invalid:?}")] {
            assert!(shown.contains("error: "), "{shown}");
            assert!(!shown.contains(pin), "{mistake}:\n{shown}");
        }
    }
}
