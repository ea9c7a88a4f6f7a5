//! Every address that an origin's name leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind};
use std::net::IpAddr;

use tokio::task::JoinSet;

use super::{ObserveError, Origin, causes, exchange};
use crate::jose::Offer;
use crate::keyring::Shown;

/// Addresses that are asked at a time. A name that leads to more is asked at
/// the first of them in order: the same ones each time.
const MOST: usize = 16;

pub(super) async fn look(origin: &Origin) -> Result<Shown, ObserveError> {
    look_at(origin, of(origin).await?).await
}

async fn look_at(origin: &Origin, all: BTreeSet<IpAddr>) -> Result<Shown, ObserveError> {
    let mut asked = JoinSet::new();
    for at in all {
        let origin = origin.clone();
        asked.spawn(async move {
            let body = exchange(&origin, Some(at)).await?;
            let offers = Offer::all(&body).map_err(|why| ObserveError::Malformed {
                url: origin.url.clone(),
                why: format!("at {at}: {why}"),
            });
            offers.map(|offers| (at.to_string(), offers))
        });
    }
    let (mut answers, mut out_of_reach) = (BTreeMap::new(), None);
    while let Some(answer) = asked.join_next().await {
        // A panic of ours is no answer.
        let answer = answer.unwrap_or_else(|e| Err(unreachable(origin, &e)));
        match answer {
            Ok(answer) => answers.extend([answer]),
            Err(e) if e.is_out_of_reach() => out_of_reach = Some(e),
            Err(e) => return Err(e),
        }
    }
    let nobody = || Error::new(ErrorKind::NotFound, "the name leads to no address");
    Shown::at(answers).ok_or_else(|| out_of_reach.unwrap_or_else(|| unreachable(origin, &nobody())))
}

async fn of(origin: &Origin) -> Result<BTreeSet<IpAddr>, ObserveError> {
    let host = origin.url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((host, 0)).await;
    let found = found.map_err(|e| unreachable(origin, &e))?;
    let all: BTreeSet<IpAddr> = found.map(|at| at.ip()).collect();
    Ok(all.into_iter().take(MOST).collect())
}

fn unreachable(origin: &Origin, e: &dyn std::error::Error) -> ObserveError {
    ObserveError::Unreachable {
        url: origin.url.clone(),
        why: causes(e),
    }
}

impl ObserveError {
    /// No way leads to that kind of address from here.
    fn is_out_of_reach(&self) -> bool {
        // What the client says is text: its errors have no kinds.
        let Self::Unreachable { why, .. } = self else {
            return false;
        };
        [
            "Network is unreachable",
            "Address family not supported",
            "Cannot assign requested address",
        ]
        .iter()
        .any(|no_way| why.contains(no_way))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use axum::http::header::CONTENT_TYPE;

    use super::*;

    fn kids(kids: &[&str]) -> BTreeSet<String> {
        kids.iter().map(|kid| (*kid).to_owned()).collect()
    }

    fn anywhere(shown: &Shown) -> BTreeSet<String> {
        let kids = shown.anywhere.iter().filter_map(|offer| offer.kid.clone());
        kids.collect()
    }

    #[tokio::test]
    async fn a_name_leads_to_all_of_its_addresses() {
        let origin = Origin::new("a", "http://localhost:1/jwks.json").unwrap();
        let all = of(&origin).await.unwrap();
        assert!(all.contains(&IpAddr::from([127, 0, 0, 1])), "{all:?}");
        let origin = Origin::new("a", "http://[::1]:1/jwks.json").unwrap();
        assert_eq!(of(&origin).await.unwrap(), ["::1".parse().unwrap()].into());
        let origin = Origin::new("a", "http://nobody.invalid/jwks.json").unwrap();
        of(&origin).await.unwrap_err();
    }

    /// Serves a body on one address and port.
    async fn serve(at: &str, port: u16, body: &'static str) -> Option<u16> {
        let listener = tokio::net::TcpListener::bind((at, port)).await.ok()?;
        let port = listener.local_addr().unwrap().port();
        let answer = move || async move { ([(CONTENT_TYPE, "application/json")], body) };
        let app = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Some(port)
    }

    #[tokio::test]
    async fn each_address_is_asked_and_all_must_answer() {
        let (one, other) = (
            r#"{"keys":[{"kid":"a"},{"kid":"b"}]}"#,
            r#"{"keys":[{"kid":"b"},{"kid":"c"}]}"#,
        );
        // Two addresses with one port that is free on both.
        let port = loop {
            let port = serve("127.0.0.1", 0, one).await.unwrap();
            if serve("127.0.0.2", port, other).await.is_some() {
                break port;
            }
        };
        let origin = Origin::new("a", &format!("http://cdn.example:{port}/jwks.json")).unwrap();
        let at = |last: &[u8]| last.iter().map(|n| IpAddr::from([127, 0, 0, *n])).collect();
        let shown = look_at(&origin, at(&[1, 2])).await.unwrap();
        assert_eq!(shown.everywhere, kids(&["b"]));
        assert_eq!(anywhere(&shown), kids(&["a", "b", "c"]));
        let addresses: Vec<_> = shown.apart.keys().collect();
        assert_eq!(addresses, ["127.0.0.1", "127.0.0.2"]);
        // One that is down is one whose verifiers nobody knows about.
        let error = look_at(&origin, at(&[1, 2, 3])).await.unwrap_err();
        assert!(error.to_string().contains("at 127.0.0.3"), "{error}");
        look_at(&origin, at(&[])).await.unwrap_err();
    }

    /// A machine without IPv6 looks at what it can look at.
    #[tokio::test]
    async fn an_address_of_a_kind_that_is_out_of_reach_is_passed_over() {
        let port = serve("127.0.0.1", 0, r#"{"keys":[{"kid":"a"}]}"#)
            .await
            .unwrap();
        let origin = Origin::new("a", &format!("http://cdn.example:{port}/jwks.json")).unwrap();
        // Documentation's prefix (RFC 3849) is routed nowhere; multicast over
        // TCP is out of reach on every machine.
        let out: IpAddr = "ff02::1".parse().unwrap();
        let both = [IpAddr::from([127, 0, 0, 1]), out].into();
        let shown = look_at(&origin, both).await.unwrap();
        assert_eq!(shown.everywhere, kids(&["a"]));
        look_at(&origin, [out].into()).await.unwrap_err();
    }
}
