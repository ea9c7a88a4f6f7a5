//! What a child says on its standard error, in the log.
//!
//! Foreign code prints what it likes. The log stays one in form, and a PIN that
//! a module prints does not get there.

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::{constant_time, digest, hmac, rand};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt as _, BufReader};
use tracing::warn;

use crate::hsm::message::Pin;

/// The longest line that is logged whole, in bytes.
const LONGEST_LINE: usize = 1024;

/// What stands where the PIN stood.
const COVER: &[u8] = b"[PIN]";

/// Recognises a PIN without holding it: the daemon reads it for the start of a
/// child, and the child keeps it.
///
/// Trust: whoever reads the daemon's memory can try PINs against this; a short
/// one falls. So does the file it came from, to whoever can read that much.
#[derive(Debug)]
pub(super) struct Mask {
    length: usize,
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Mask {
    /// None of an empty PIN, or without randomness.
    pub(super) fn of(pin: &Pin) -> Option<Self> {
        let pin = pin.expose();
        let mut salt = [0; digest::SHA256_OUTPUT_LEN];
        rand::fill(&mut salt).ok()?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salt);
        (!pin.is_empty()).then(|| Self {
            length: pin.len(),
            tag: hmac::sign(&key, pin),
            key,
        })
    }

    fn is(&self, bytes: &[u8]) -> bool {
        let tag = hmac::sign(&self.key, bytes);
        constant_time::verify_slices_are_equal(tag.as_ref(), self.tag.as_ref()).is_ok()
    }

    /// The same line with the PIN covered wherever it stands.
    fn cover(&self, mut line: &[u8]) -> Vec<u8> {
        let mut covered = Vec::with_capacity(line.len());
        while let Some(&first) = line.first() {
            match line.get(..self.length) {
                Some(start) if self.is(start) => {
                    covered.extend_from_slice(COVER);
                    line = &line[self.length..];
                }
                _ => {
                    covered.push(first);
                    line = &line[1..];
                }
            }
        }
        covered
    }
}

/// The mask of the PIN that a child has, once it has one.
pub(super) type Masked = Arc<Mutex<Option<Mask>>>;

/// Logs a child's lines until it is gone.
pub(super) async fn run(device: String, pid: u32, stderr: impl AsyncRead + Unpin, masked: Masked) {
    let mut said = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut part = (&mut said).take(LONGEST_LINE as u64);
        let read = part.read_until(b'\n', &mut line).await;
        if !read.is_ok_and(|n| n > 0) {
            return;
        }
        let whole = line.len() < LONGEST_LINE || line.ends_with(b"\n");
        if !whole && !pass_over(&mut said).await {
            return;
        }
        let text = shown(&line, whole, &masked);
        if !text.is_empty() {
            warn!(device, pid, text, "the device's process says");
        }
    }
}

/// Reads the rest of a line and forgets it; whether there may be more lines.
async fn pass_over(said: &mut (impl AsyncBufReadExt + Unpin)) -> bool {
    loop {
        let Ok(more) = said.fill_buf().await else {
            return false;
        };
        if more.is_empty() {
            return true; // What was read is still to be told.
        }
        let (used, ended) = match more.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (more.len(), false),
        };
        said.consume(used);
        if ended {
            return true;
        }
    }
}

fn shown(line: &[u8], whole: bool, masked: &Masked) -> String {
    let mask = masked.lock().unwrap_or_else(PoisonError::into_inner);
    let covered = match &*mask {
        Some(mask) => {
            // A PIN that the cut went through is not recognised.
            let cut = if whole { 0 } else { mask.length };
            mask.cover(&line[..line.len().saturating_sub(cut)])
        }
        None => line.to_vec(),
    };
    String::from_utf8_lossy(&covered).trim_end().to_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use super::*;

    fn masked(pin: &str) -> Masked {
        let mask = Mask::of(&Pin::new(pin.as_bytes().to_vec()));
        Arc::new(Mutex::new(mask))
    }

    #[test]
    fn a_pin_is_covered_wherever_it_stands() {
        let masked = masked("83920174");
        let shown = |line: &str| shown(line.as_bytes(), true, &masked);
        for (line, expected) in [
            ("login with 83920174\n", "login with [PIN]"),
            ("83920174", "[PIN]"),
            ("8392017483920174\r\n", "[PIN][PIN]"),
            ("8383920174x", "83[PIN]x"),
            ("8392017", "8392017"),
            ("", ""),
        ] {
            assert_eq!(shown(line), expected, "{line:?}");
        }
        let unset = Masked::default();
        assert_eq!(super::shown(b"as it is\n", true, &unset), "as it is");
        // Nothing is recognised everywhere.
        assert!(Mask::of(&Pin::new(Vec::new())).is_none());
        let debug = format!("{:?}", masked.lock().unwrap());
        assert!(!debug.contains("83920174"), "{debug}");
    }

    #[test]
    fn a_pin_that_a_cut_goes_through_is_left_out() {
        let masked = masked("83920174");
        for within in 1..8 {
            let line = format!("{}{}", "x".repeat(100), &"83920174"[..within]);
            let shown = shown(line.as_bytes(), false, &masked);
            assert!(!shown.contains('8'), "{shown}");
            assert!(shown.len() >= 92);
        }
    }

    #[tokio::test]
    async fn the_rest_of_a_long_line_is_passed_over() {
        let text = format!("{}83920174\nnext\n", "y".repeat(5000));
        let mut said = BufReader::with_capacity(64, text.as_bytes());
        assert!(pass_over(&mut said).await);
        let mut next = String::new();
        said.read_line(&mut next).await.unwrap();
        assert_eq!(next, "next\n");
        assert!(pass_over(&mut said).await, "the end is no error");
    }
}
