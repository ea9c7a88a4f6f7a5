//! `keys revoke` before an agent whose writer waits for its store.

use std::cell::RefCell;
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use sealkeeper::agent::Administration;
use sealkeeper::agent::admin::{
    AdminError, Change, Changed, DeviceOrder, Ended, KeySetStatus, Order,
};
use sealkeeper::agent::forced::Rotation;
use sealkeeper::agent::impact::{Foreseen, Thought};
use sealkeeper::jose::Algorithm;
use sealkeeper::policy::Caller;

use super::fake::{Signer, Unchanging, published};
use super::*;

/// Takes orders, and never gets to the listing of keys.
#[derive(Default)]
struct Busy {
    revoked: Mutex<Vec<String>>,
}

impl Administration for Busy {
    async fn key_sets(&self, _: &Caller, _: Option<&str>) -> Result<Vec<KeySetStatus>, AdminError> {
        std::future::pending().await
    }

    async fn change(&self, _: &Caller, order: Order) -> Result<Changed, AdminError> {
        if let Change::Revoke { kid, .. } = order.change {
            self.revoked.lock().unwrap().push(kid);
        }
        Ok(Changed {
            key_set: KeySetStatus {
                name: "main".into(),
                version: String::new(),
                issuer: "https://issuer.example".into(),
                keys: vec![],
                next: vec![],
                forgotten: vec![],
                clock_doubt: None,
                not_in_force: None,
                requests: vec![],
            },
            done: vec!["it is blocked".into()],
            pending: vec![],
            trusted_until: None,
            durable: true,
            alone: None,
            impact: None,
        })
    }

    async fn revoke_device(&self, _: &Caller, _: DeviceOrder) -> Result<Vec<Ended>, AdminError> {
        std::future::pending().await
    }

    async fn foresee(&self, _: &Caller, _: &str, _: Thought) -> Result<Foreseen, AdminError> {
        std::future::pending().await
    }

    async fn foresee_rotation(
        &self,
        _: &Caller,
        _: &str,
        _: Option<Algorithm>,
    ) -> Result<Rotation, AdminError> {
        std::future::pending().await
    }
}

/// Whether `keys revoke KID` succeeds before this agent, and what it warns of.
async fn revoke(busy: &Arc<Busy>, signer: &Arc<Signer>, kid: &str) -> (bool, String) {
    let admin = {
        let (callers, busy) = (callers(), Arc::clone(busy));
        Server::start(move |listener, stopped| async move {
            let stopped = async { drop(stopped.await) };
            let limits = Limits::default();
            let configuration = Arc::new(Unchanging);
            grpc_edge::serve_admin(listener, busy, callers, configuration, limits, stopped).await;
        })
    };
    let signing = Server::signer(signer, Limits::default());
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("sealkeeper.toml");
    let text = format!(
        r#"
state_dir = "{dir}"
[serve]
signing_socket = "{signing}"
admin_socket = "{admin}"
jwks_listen = "127.0.0.1:0"
[device.hsm]
kind = "pkcs11"
module = "{dir}/module.so"
token = "lab"
pin = {{ file = "{dir}/pin" }}
[key_set.main]
issuer = "https://issuer.example"
device = "hsm"
[[key_set.main.track]]
alg = "ES256"
"#,
        dir = dir.path().display(),
        signing = signing.path().display(),
        admin = admin.path().display(),
    );
    std::fs::write(&config, text).unwrap();
    let told = dir.path().join("told");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealkeeper"));
    command
        .args(["keys", "revoke", kid, "--config"])
        .arg(config);
    command.stdout(Stdio::null());
    command.stderr(File::create(&told).unwrap());
    let running = RefCell::new(Running(command.spawn().unwrap()));
    until(|| running.borrow_mut().0.try_wait().unwrap().is_some()).await;
    let ended = running.borrow_mut().0.wait().unwrap();
    (ended.success(), std::fs::read_to_string(told).unwrap())
}

/// Ends with the test, whatever becomes of that.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// Found by review: the key signed on until the writer had time to list keys.
#[tokio::test]
async fn an_order_with_a_whole_id_waits_for_no_listing() {
    let (busy, signer) = (Arc::new(Busy::default()), Arc::new(Signer::default()));
    let kid = "K".repeat(42) + "A";
    let jwks = format!(r#"{{"keys":[{{"kid":"{kid}"}}]}}"#);
    *signer.jwks.lock().unwrap() = published(&jwks, "\"v1\"");
    let told = revoke(&busy, &signer, &kid).await;
    assert_eq!(told, (true, String::new()));
    assert_eq!(*busy.revoked.lock().unwrap(), std::slice::from_ref(&kid));
    // One that verifiers do not get: it is the agent that knows.
    let other = "A".repeat(43);
    let (succeeds, told) = revoke(&busy, &signer, &other).await;
    assert!(
        succeeds && told.contains("the agent has not said within 2s"),
        "{told}"
    );
    assert_eq!(*busy.revoked.lock().unwrap(), [kid, other]);
}
