#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::LOCATION;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::audit::{KeyEvent, Limits};
use crate::clock::ManualClock;
use crate::durable::OsDisk;
use crate::metrics::Gauges;

const SECRET: &str = "whsec_c2VhbGtlZXBlci10ZXN0LXNlY3JldC0wMTIzNDU2Nzg5";
const OTHER: &str = "YW5vdGhlci1zZWNyZXQtb2YtdGhlLXNhbWUtdGVzdHM=";

/// What `openssl dgst -sha256 -mac HMAC` says of `evt_0102.1700000000.` and the
/// body, by the one secret and by the other.
const VECTORS: [&str; 2] = [
    "v1,X1GbnSZxsUCiymAlVZJmm0a4Wlgx6XFMxoW9mXS3Iww=",
    "v1,eK64hVKzo+Nf+NicD5U6fHXu4WO2EqaS2gPHcXL2pNE=",
];

#[test]
fn the_signature_is_what_openssl_makes_of_it() {
    let sign = |text: &str| {
        let secrets = Secrets::parse(text.as_bytes()).unwrap();
        assert!(!format!("{secrets:?}").contains("seal"));
        secrets.sign("evt_0102", 1_700_000_000, br#"{"event":"revoked"}"#)
    };
    assert_eq!(sign(SECRET), VECTORS[0]);
    assert_eq!(sign(&format!("{OTHER}\r\n")), VECTORS[1]);
    // While one is replaced, both.
    assert_eq!(sign(&format!("{SECRET}\n\n{OTHER}\n")), VECTORS.join(" "));
}

#[test]
fn a_secret_that_is_none_is_refused_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    let read = |text: &str, mode| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let source = SecretSource::File(path.clone());
        Secrets::read(&source).map(drop).map_err(|e| e.to_string())
    };
    read(SECRET, 0o600).unwrap();
    read(SECRET, 0o400).unwrap();
    for (text, mode, why) in [
        (SECRET, 0o640, "0640"),
        (SECRET, 0o604, "chmod 600"),
        ("", 0o600, "0 lines"),
        ("\n", 0o600, "0 lines"),
        ("whsec_c2VhbGtlZXBlcg==", 0o600, "10 bytes in line 1"),
        ("sealkeeper, sealkeeper", 0o600, "no base64 in line 1"),
        (&format!("{SECRET}\n").repeat(5), 0o600, "5 lines"),
        (&"A".repeat(1025), 0o600, "more than 1024"),
    ] {
        let error = read(text, mode).unwrap_err();
        assert!(error.contains(why), "{error}");
        assert!(
            !error.contains("c2Vh") && !error.contains("sealkeeper,"),
            "{error}"
        );
    }
}

#[test]
fn plain_http_goes_to_this_machine_alone() {
    for good in [
        "https://ops.example/hooks/keys?token=abc",
        "http://127.0.0.1:8000/",
        "http://127.1.2.3/x",
        "http://[::1]:9/x",
        "http://localhost/x",
    ] {
        Webhook::address(good).unwrap();
    }
    for bad in [
        "http://ops.example/sesame",
        "http://127.0.0.1.example/sesame",
        "http://10.0.0.1/sesame",
        "http://[::2]/sesame",
        "https://user:sesame@ops.example/sesame",
        "https://ops.example",
        "ftp://ops.example/sesame",
    ] {
        let error = Webhook::address(bad).unwrap_err().to_string();
        assert!(!error.contains("sesame"), "{error}");
    }
}

/// What a receiver was told.
#[derive(Clone, Debug)]
struct Told {
    id: String,
    body: serde_json::Value,
}

/// Answers with each of `answers` once, and then with 204. A status of 302
/// leads to `/elsewhere`.
#[derive(Clone, Default)]
struct Receiver {
    answers: Arc<Mutex<VecDeque<u16>>>,
    told: Arc<Mutex<Vec<(u16, String, Told)>>>,
}

impl Receiver {
    fn answering(answers: &[u16]) -> Self {
        let answers = answers.iter().copied().collect();
        Self {
            answers: Arc::new(Mutex::new(answers)),
            ..Self::default()
        }
    }

    async fn listen(&self) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = self.clone();
        let answer = move |uri: Uri, headers: HeaderMap, body: String| {
            let id = headers["webhook-id"].to_str().unwrap().to_owned();
            let timestamp = headers["webhook-timestamp"].to_str().unwrap();
            let signed = Secrets::parse(SECRET.as_bytes()).unwrap().sign(
                &id,
                timestamp.parse().unwrap(),
                body.as_bytes(),
            );
            assert_eq!(headers["webhook-signature"], signed);
            let body = serde_json::from_str(&body).unwrap();
            let status = this.answers.lock().unwrap().pop_front().unwrap_or(204);
            let told = (status, uri.path().to_owned(), Told { id, body });
            this.told.lock().unwrap().push(told);
            let status = StatusCode::from_u16(status).unwrap();
            std::future::ready((status, [(LOCATION, "/elsewhere")]))
        };
        let app = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}/hook")
    }

    /// The `kid`s that it was told of, and how it answered.
    fn kids(&self) -> Vec<(u16, String)> {
        let told = self.told.lock().unwrap();
        let kid = |told: &Told| told.body["kid"].as_str().unwrap_or_default().to_owned();
        told.iter().map(|(s, _, told)| (*s, kid(told))).collect()
    }

    /// Waits until it was told of as many.
    async fn told(&self, count: usize) -> Vec<(u16, String)> {
        let kids = || async { Some(self.kids()).filter(|kids| kids.len() >= count) };
        until(kids).await
    }
}

/// A log, and what stands beside it.
struct House {
    dir: TempDir,
    audit: Arc<Audit>,
    metrics: Metrics,
    number: Mutex<u64>,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, SECRET).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let audit = Self::audit(dir.path());
        Self {
            dir,
            audit,
            metrics: Metrics::new(),
            number: Mutex::new(0),
        }
    }

    fn audit(dir: &Path) -> Arc<Audit> {
        let audit = Audit::open(Arc::new(OsDisk), dir.join("audit"), "a", Limits::default());
        Arc::new(audit.unwrap())
    }

    fn hook(&self, name: &str, url: &str) -> Webhook {
        Webhook {
            name: name.to_owned(),
            url: Webhook::address(url).unwrap(),
            secret: SecretSource::File(self.dir.path().join("secret")),
            events: DEFAULT_EVENTS.map(str::to_owned).into(),
            trust: Trust::System,
        }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("webhooks")
    }

    /// For looking at it alone: opening it for writing sweeps it.
    fn book(&self) -> ProgressBook {
        ProgressBook::reading(Arc::new(OsDisk), self.folder())
    }

    /// Starts them, and waits until each knows where it begins.
    async fn start(&self, hooks: &[Webhook]) -> Webhooks {
        let ports = Ports {
            audit: Arc::clone(&self.audit),
            book: ProgressBook::open(Arc::new(OsDisk), self.folder()).unwrap(),
            clock: Arc::new(ManualClock::new(Time::from_secs(1_700_000_000))),
            metrics: self.metrics.clone(),
            issuers: [("main".to_owned(), "https://login.example".to_owned())].into(),
        };
        let started = Webhooks::start(hooks.to_vec(), ports);
        for hook in hooks {
            until(|| async { self.book().load(&hook.name).unwrap() }).await;
        }
        started
    }

    fn happens(&self, event: &str, kid: &str) {
        let mut number = self.number.lock().unwrap();
        *number += 1;
        let event = KeyEvent {
            at: Time::from_secs(1_699_999_990),
            key_set: "main".to_owned(),
            number: *number,
            event: event.to_owned(),
            key: "00".to_owned(),
            kid: Some(kid.to_owned()),
            jwk: Some(serde_json::json!({ "alg": "ES256", "kid": kid })),
            note: Some("reason compromised".to_owned()),
            by: Some("unix:1000".to_owned()),
            remark: Some("a ticket".to_owned()),
            alone: false,
        };
        self.audit.key_event(event).unwrap();
    }

    async fn progress(&self, name: &str, good: impl Fn(&Progress) -> bool) -> Progress {
        let book = self.book();
        until(|| async { book.load(name).unwrap().filter(|progress| good(progress)) }).await
    }
}

async fn until<T, F: Future<Output = Option<T>>>(condition: impl Fn() -> F) -> T {
    let began = std::time::Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "gave up");
        ticks.tick().await;
    }
}

fn kids(told: &[(u16, &str)]) -> Vec<(u16, String)> {
    told.iter()
        .map(|(s, kid)| (*s, (*kid).to_owned()))
        .collect()
}

#[tokio::test]
async fn a_revocation_is_told_while_another_receiver_hangs() {
    let house = House::new();
    // What happened before is not told.
    house.happens("revoked", "before");
    // Connections get as far as the kernel, and no answer.
    let hangs = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let hangs = format!("http://{}/", hangs.local_addr().unwrap());
    let receiver = Receiver::default();
    let hooks = [
        house.hook("a-hanging", &hangs),
        house.hook("b", &receiver.listen().await),
    ];
    let _started = house.start(&hooks).await;
    let began = std::time::Instant::now();
    house.happens("generation-begun", "not asked for");
    house.happens("revoked", "k1");
    assert_eq!(receiver.told(1).await, kids(&[(204, "k1")]));
    // The one that hangs has as long as this for its answer.
    assert!(began.elapsed() < PATIENCE);
    let told = receiver.told.lock().unwrap()[0].2.clone();
    assert_eq!(
        told.body,
        serde_json::json!({
            "id": told.id,
            "at": "2023-11-14T22:13:10Z",
            "event": "revoked",
            "key_set": "main",
            "issuer": "https://login.example",
            "kid": "k1",
            "alg": "ES256",
            "reason": "compromised",
        })
    );
    let progress = house.progress("b", |progress| progress.told == 3).await;
    assert_eq!(progress.answered, Some(Time::from_secs(1_700_000_000)));
}

#[tokio::test]
async fn what_failed_is_tried_again_under_the_same_id() {
    let house = House::new();
    let receiver = Receiver::answering(&[500]);
    let hooks = [house.hook("ops", &receiver.listen().await)];
    let _started = house.start(&hooks).await;
    house.happens("activated", "k1");
    let failing = house.progress("ops", |now| now.failing.is_some()).await;
    assert!(failing.why.contains("answered 500"), "{failing:?}");
    assert_eq!(failing.told, 0);
    assert_eq!(receiver.told(2).await, kids(&[(500, "k1"), (204, "k1")]));
    {
        let told = receiver.told.lock().unwrap();
        assert_eq!(told[0].2.id, told[1].2.id);
    }
    let good = house.progress("ops", |now| now.failing.is_none()).await;
    assert_eq!((good.told, good.why.as_str()), (1, ""));
    let figures = house.metrics.render(&Gauges::default());
    for line in [
        r#"sealkeeper_webhook_delivered_total{webhook="ops"} 1"#,
        r#"sealkeeper_webhook_failed_total{webhook="ops"} 1"#,
        r#"sealkeeper_webhook_waiting{webhook="ops"} 0"#,
    ] {
        assert!(figures.contains(line), "{line} in {figures}");
    }
}

/// One that the receiver does not like holds no other up, and a revocation is
/// first.
#[tokio::test]
async fn a_refused_event_does_not_hold_up_a_revocation() {
    let house = House::new();
    let receiver = Receiver::answering(&[400]);
    let url = receiver.listen().await;
    let hooks = [house.hook("ops", &url)];
    drop(house.start(&hooks).await);
    house.happens("published", "k1");
    house.happens("activated", "k2");
    house.happens("revoked", "k3");
    let _started = house.start(&hooks).await;
    let told = receiver.told(4).await;
    let wanted = [(400, "k3"), (204, "k1"), (204, "k2"), (204, "k3")];
    assert_eq!(told, kids(&wanted));
    house.progress("ops", |now| now.told == 3).await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let house = House::new();
    let receiver = Receiver::answering(&[302]);
    let hook = house.hook("ops", &receiver.listen().await);
    let error = hook.test(Time::from_secs(1_700_000_000)).await.unwrap_err();
    assert!(error.to_string().contains("redirects are not followed"));
    let paths = || {
        let told = receiver.told.lock().unwrap();
        told.iter()
            .map(|(_, path, _)| path.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(paths(), ["/hook"]);
    hook.test(Time::from_secs(1_700_000_000)).await.unwrap();
    assert_eq!(paths(), ["/hook", "/hook"]);
    let told = receiver.told.lock().unwrap();
    assert_eq!(told[1].2.body["event"], "test");
}

#[tokio::test]
async fn what_was_not_delivered_is_told_after_a_restart() {
    let mut house = House::new();
    let receiver = Receiver::default();
    let url = receiver.listen().await;
    let started = house.start(&[house.hook("ops", &url)]).await;
    house.happens("published", "k1");
    house.progress("ops", |now| now.told == 1).await;
    drop(started);
    // Nobody listens there.
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let gone = format!("http://{}/", nobody.local_addr().unwrap());
    drop(nobody);
    let started = house.start(&[house.hook("ops", &gone)]).await;
    house.happens("revoked", "k2");
    house.progress("ops", |now| now.failing.is_some()).await;
    drop(started);
    // The log is let go when the tasks have ended.
    until(|| async { (Arc::strong_count(&house.audit) == 1).then_some(()) }).await;
    // And its lock with it.
    let elsewhere = tempfile::tempdir().unwrap();
    house.audit = House::audit(elsewhere.path());
    house.audit = House::audit(house.dir.path());
    house.happens("activated", "k3");
    let _started = house.start(&[house.hook("ops", &url)]).await;
    let wanted = [(204, "k1"), (204, "k2"), (204, "k3")];
    assert_eq!(receiver.told(3).await, kids(&wanted));
    let good = house.progress("ops", |now| now.failing.is_none()).await;
    assert_eq!(good.told, 3);
}
