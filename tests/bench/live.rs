//! The laboratory of the tests.

#[expect(dead_code, reason = "the tests need more of the laboratory")]
#[path = "../live/lab.rs"]
pub(crate) mod lab;
