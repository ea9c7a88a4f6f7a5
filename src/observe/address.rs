//! Addresses at which a JWKS can be observed, and when two are the same.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::Uri;

/// What is wrong with an address, and what was expected.
type Why = String;

/// What an address is for, in what is said of it.
pub(super) struct Purpose {
    path: &'static str,
    example: &'static str,
    no_user: &'static str,
}

/// Verifiers ask there.
pub(super) const JWKS: Purpose = Purpose {
    path: "the path of a JWKS",
    example: "/main/jwks.json",
    no_user: "a JWKS is public, and verifiers send none",
};

/// Something is sent there.
pub(super) const RECEIVER: Purpose = Purpose {
    path: "a path",
    example: "/hooks/keys",
    no_user: "the signature says who sends",
};

/// An address that can be asked, and its one spelling among those that lead to
/// the same place (RFC 3986 section 6.2): scheme and host in lower case, no
/// default port, no dot at the end of the host, nothing percent-encoded that
/// need not be.
pub(super) fn check(url: &str, of: &Purpose) -> Result<(Uri, String), Why> {
    const SCHEME: &str = "expected an address that begins with https:// or http://";
    let bare = url.split_once("://").map_or("", |(_, rest)| rest);
    if url.contains("://") && (bare.is_empty() || bare.starts_with(['/', '?', '#', ':'])) {
        return Err("expected a host name or an address after ://, got none".to_owned());
    }
    let parsed = url.parse::<Uri>().map_err(|e| format!("{SCHEME}: {e}"))?;
    let scheme = match parsed.scheme_str() {
        Some(scheme @ ("http" | "https")) => scheme,
        _ => return Err(SCHEME.to_owned()),
    };
    let authority = parsed
        .authority()
        .map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err(format!("expected no user or password: {}", of.no_user));
    }
    let (host, port) = split(authority);
    let host = host_of(host)?;
    let port = port_of(port)?;
    if url.contains('#') {
        return Err("expected no fragment (#): it is never sent to the server".to_owned());
    }
    if !bare[authority.len().min(bare.len())..].starts_with('/') {
        return Err(format!(
            "expected {} after the host, such as {scheme}://{authority}{}, got none",
            of.path, of.example
        ));
    }
    let path = encoded(parsed.path())?;
    if path.split('/').any(|part| part == "." || part == "..") {
        return Err("expected no . or .. in the path: verifiers differ on them".to_owned());
    }
    let query = match parsed.query() {
        Some(query) => format!("?{}", encoded(query)?),
        None => String::new(),
    };
    let usual = if scheme == "https" { 443 } else { 80 };
    let port = port.filter(|port| *port != usual);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let spelling = format!("{scheme}://{host}{port}{path}{query}");
    Ok((parsed, spelling))
}

/// Host and port, the latter with what stands after the colon.
fn split(authority: &str) -> (&str, Option<&str>) {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => {
            (&authority[..colon], Some(&authority[colon + 1..]))
        }
        _ => (authority, None),
    }
}

fn port_of(port: Option<&str>) -> Result<Option<u16>, Why> {
    let Some(port) = port else { return Ok(None) };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits && number != 0 => Ok(Some(number)),
        _ => Err(format!("expected a port from 1 to 65535, got {port:?}")),
    }
}

/// In its one spelling.
fn host_of(host: &str) -> Result<String, Why> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').unwrap_or(inner);
        let address: Result<Ipv6Addr, _> = inner.parse();
        let address =
            address.map_err(|_| format!("expected an IPv6 address in brackets, got {host:?}"))?;
        return Ok(format!("[{address}]"));
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if name.is_empty() {
        return Err("expected a host name or an address".to_owned());
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    // A name never ends in a number (RFC 3696 section 2).
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        let address: Result<Ipv4Addr, _> = name.parse();
        return match address {
            Ok(address) => Ok(address.to_string()),
            Err(_) => Err(format!(
                "expected an IPv4 address of four numbers up to 255, or a name, got {host:?}"
            )),
        };
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(fits);
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(format!(
            "expected a host name of letters, digits and hyphens, got {host:?}; other letters in their ASCII form (xn--)"
        ));
    }
    Ok(name)
}

/// With what need not be percent-encoded as it is, and the rest in capitals
/// (RFC 3986 sections 2.3 and 6.2.2).
fn encoded(text: &str) -> Result<String, Why> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if !c.is_ascii_graphic() {
            return Err(format!(
                "expected percent-encoded ASCII, got {:?}",
                c.to_string()
            ));
        }
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut digit = || rest.next().and_then(|c| c.to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err("expected two hexadecimal digits after each %".to_owned());
        };
        let byte = u8::try_from(high * 16 + low).unwrap_or_default();
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(out)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_spelling() {
        let one = check("https://login.example/main/jwks.json?a=b", &JWKS)
            .unwrap()
            .1;
        assert_eq!(one, "https://login.example/main/jwks.json?a=b");
        for other in [
            "HTTPS://Login.Example/main/jwks.json?a=b",
            "https://login.example:443/main/jwks.json?a=b",
            "https://login.example:0443/main/jwks.json?a=b",
            "https://login.example./main/jwks.json?a=b",
            "https://login.example/main/jwks%2ejson?a=b",
            "https://login.example/%6D%61in/jwks.json?%61=b",
        ] {
            assert_eq!(check(other, &JWKS).unwrap().1, one, "{other}");
        }
        for other in [
            "http://login.example/main/jwks.json?a=b",
            "https://login.example:444/main/jwks.json?a=b",
            "https://login.example/Main/jwks.json?a=b",
            "https://login.example/main/jwks.json/?a=b",
            "https://login.example/main%2Fjwks.json?a=b",
            "https://login.example/main/jwks.json",
        ] {
            assert_ne!(check(other, &JWKS).unwrap().1, one, "{other}");
        }
        let six = check("http://[0:0::1]:80/a%2fb", &JWKS).unwrap().1;
        assert_eq!(six, "http://[::1]/a%2Fb");
    }

    #[test]
    fn nonsense_is_refused_with_what_is_wrong() {
        for (url, why) in [
            ("https://a:99999/j", "port from 1 to 65535, got \"99999\""),
            ("https://a:0/j", "port from 1 to 65535"),
            ("https://a:/j", "port from 1 to 65535, got \"\""),
            ("https://a:+1/j", ""),
            ("https://999.1.1.1/j", "IPv4 address"),
            ("https://1.2.3/j", "IPv4 address"),
            ("https://[::g]/j", ""),
            ("https://a/j#x", "fragment"),
            ("https://a#x", ""),
            ("https://a", "path of a JWKS"),
            ("https://a?x=y", "path of a JWKS"),
            ("https:///j", "host name"),
            ("https://:80/j", "host name"),
            ("https://", "host name"),
            ("https://./j", "host name"),
            ("https://a..b/j", "host name"),
            ("https://a/%zz", "two hexadecimal digits"),
            ("https://a/%4", "two hexadecimal digits"),
            ("https://a/../j", "no . or .."),
            ("https://a/%2e%2e/j", "no . or .."),
            ("https://u:p@a/j", "no user or password"),
            ("https://bücher.example/j", ""),
        ] {
            let error = check(url, &JWKS).unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
