//! An agent under load, through the client that callers are given.

use std::time::Duration;

use sealkeeper::client::{Client, Item, Signed};
use serde_json::Value;

use super::CLAIMS;
use super::live::lab::{CALM, Daemon, Lab, wait_for};
use super::load::{Figure, drive};
use super::machine::{Memory, children_of, memory};
use super::tls::Authority;
use super::token::Key;

/// How many items a batch has.
const BATCH: usize = 64;
/// Over how many connections requests come, at most.
const CONNECTIONS: usize = 4;

/// A laboratory whose agent serves, with all its keys made.
pub(crate) struct Agent {
    pub(crate) lab: Lab,
    pub(crate) daemon: Daemon,
    authority: Authority,
}

/// How callers ask.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// So many at a time, each a call of its own.
    Unary(usize),
    /// The same over TLS, with client certificates.
    Tls(usize),
    /// Messages of many items, two at a time.
    Batch,
    /// One call for all, so many items of it at a time.
    Stream(usize),
    /// The same over TLS.
    TlsStream(usize),
}

impl Way {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Unary(n) => format!("unary, {n} in flight"),
            Self::Tls(n) => format!("unary, mTLS, {n} in flight"),
            Self::Batch => format!("2 batches of {BATCH}"),
            Self::Stream(n) => format!("streamed, {n} in flight"),
            Self::TlsStream(n) => format!("streamed, mTLS, {n} in flight"),
        }
    }
}

impl Agent {
    /// With these algorithms; `amend` changes the configuration.
    pub(crate) async fn start(algorithms: &[&str], amend: impl Fn(&Lab)) -> Self {
        let lab = Lab::new(CALM, algorithms);
        let authority = Authority::new(&lab);
        let serve = format!(
            "[serve]\nmetrics_listen = \"127.0.0.1:0\"\nsigning_listen = \"127.0.0.1:0\"\n\
             signing_tls = {}",
            authority.setting()
        );
        lab.amend("[serve]", &serve);
        let rule = format!(
            "[[key_set.main.rule]]\nname = \"tls\"\ndns = [{:?}]\n",
            super::tls::CLIENT
        );
        let rule = rule + "operations = [\"sign-jwt\"]\n[[key_set.main.rule]]";
        lab.amend("[[key_set.main.rule]]", &rule);
        amend(&lab);
        lab.init();
        let daemon = lab.serve().await;
        let agent = Self {
            lab,
            daemon,
            authority,
        };
        agent.settled(algorithms.len()).await;
        agent
    }

    /// Waits until each track has its standby: what is measured afterwards
    /// shares the token with nobody.
    pub(crate) async fn settled(&self, tracks: usize) {
        wait_for(|| self.keys().len() >= 2 * tracks).await;
    }

    /// Every key that can sign, the active ones first.
    pub(crate) fn keys(&self) -> Vec<Value> {
        let mut keys = self.lab.keys();
        keys.retain(|key| ["active", "published"].contains(&key["phase"].as_str().unwrap()));
        keys.sort_by_key(|key| key["phase"].as_str().unwrap().to_owned());
        keys
    }

    /// The active key of a track.
    pub(crate) async fn key(&self, alg: &str) -> Key {
        let keys = self.keys();
        let key = keys.iter().find(|key| key["alg"] == alg).unwrap();
        let set: Value = serde_json::from_slice(&self.daemon.jwks().await.unwrap()).unwrap();
        let jwks = set["keys"].as_array().unwrap();
        let jwk = jwks.iter().find(|jwk| jwk["kid"] == key["kid"]).unwrap();
        Key {
            alg: alg.to_owned(),
            id: key["placements"][0]["handle_id"]
                .as_str()
                .unwrap()
                .to_owned(),
            jwk: jwk.clone(),
        }
    }

    /// The callers, the agent and its devices.
    pub(crate) fn processes(&self) -> [Vec<u32>; 3] {
        let agent = self.daemon.id();
        [vec![std::process::id()], vec![agent], children_of(agent)]
    }

    /// Of the agent and its devices.
    pub(crate) fn memory(&self) -> Memory {
        let [_, agent, devices] = self.processes();
        memory(&[agent, devices].concat())
    }

    /// A figure of one way of asking.
    pub(crate) async fn drive(&self, way: Way, alg: &str, span: Duration) -> Figure {
        let processes = self.processes();
        let item = item("main", Some(alg));
        match way {
            Way::Unary(n) | Way::Tls(n) => {
                let clients: Vec<Client> =
                    (0..n.min(CONNECTIONS)).map(|_| self.client(way)).collect();
                let callers = (0..n).map(|n| {
                    let (client, item) = (clients[n % clients.len()].clone(), item.clone());
                    async move || signed(client.sign(item.clone()).await)
                });
                drive(span, 1, &processes, callers).await
            }
            Way::Batch => {
                let callers = (0..2).map(|_| {
                    let (client, items) = (self.client(way), vec![item.clone(); BATCH]);
                    async move || {
                        let all = client.sign_batch(items.clone()).await.unwrap();
                        all.into_iter().for_each(signed);
                    }
                });
                drive(span, BATCH, &processes, callers).await
            }
            Way::Stream(n) | Way::TlsStream(n) => {
                let stream = self.client(way).stream();
                let callers = (0..n).map(|_| {
                    let (stream, item) = (stream.clone(), item.clone());
                    async move || signed(stream.sign(item.clone()).await)
                });
                drive(span, 1, &processes, callers).await
            }
        }
    }

    fn client(&self, way: Way) -> Client {
        match way {
            Way::Tls(_) | Way::TlsStream(_) => {
                let address = self.daemon.address("signing_listen");
                self.authority
                    .client(address.strip_prefix("http://").unwrap())
            }
            _ => Client::unix(self.lab.path("sign.sock")),
        }
    }
}

/// Something to sign.
pub(crate) fn item(key_set: &str, alg: Option<&str>) -> Item {
    let claims: Value = serde_json::from_str(CLAIMS).unwrap();
    let item = Item::jwt(key_set, &claims).unwrap();
    match alg {
        Some(alg) => item.with_alg(alg),
        None => item,
    }
}

/// It must be a token.
pub(crate) fn signed(result: Result<Signed, sealkeeper::client::Error>) {
    match result {
        Ok(Signed::Jwt(_)) => {}
        other => panic!("expected a token, got {other:?}"),
    }
}
