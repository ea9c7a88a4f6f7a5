//! Places where a test may kill the process, before and after each effect.
//!
//! They exist only in builds with the feature `failpoints`; in every other
//! build [`hit`] is empty.

/// Every effect that a step of the agent has outside its own memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name is the effect")]
pub enum Effect {
    StoreRecord,
    AppendKeyEvents,
    Generate,
    Destroy,
    WriteLastGood,
    WritePlaceholder,
    WriteTombstone,
    SwapView,
    AppendSigning,
}

impl Effect {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::StoreRecord,
        Self::AppendKeyEvents,
        Self::Generate,
        Self::Destroy,
        Self::WriteLastGood,
        Self::WritePlaceholder,
        Self::WriteTombstone,
        Self::SwapView,
        Self::AppendSigning,
    ];

    /// The name that a test uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StoreRecord => "store-record",
            Self::AppendKeyEvents => "append-key-events",
            Self::Generate => "generate",
            Self::Destroy => "destroy",
            Self::WriteLastGood => "write-last-good",
            Self::WritePlaceholder => "write-placeholder",
            Self::WriteTombstone => "write-tombstone",
            Self::SwapView => "swap-view",
            Self::AppendSigning => "append-signing",
        }
    }
}

/// On which side of the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name is the side")]
pub enum Side {
    Before,
    After,
}

/// Dies here, as by `kill -9`, if `SEALKEEPER_FAILPOINT` says
/// `before:EFFECT:N` or `after:EFFECT:N` and this is the Nth time; where
/// `SEALKEEPER_FAILPOINT_FROM` names a file, the Nth since that is there.
#[cfg(feature = "failpoints")]
pub fn hit(side: Side, effect: Effect) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static HITS: AtomicU64 = AtomicU64::new(0);

    let Ok(wanted) = std::env::var("SEALKEEPER_FAILPOINT") else {
        return;
    };
    let side = match side {
        Side::Before => "before",
        Side::After => "after",
    };
    let here = format!("{side}:{}", effect.name());
    let Some((place, nth)) = wanted.rsplit_once(':') else {
        return;
    };
    let from = std::env::var_os("SEALKEEPER_FAILPOINT_FROM");
    if place != here || from.is_some_and(|file| !std::path::Path::new(&file).exists()) {
        return;
    }
    if Ok(HITS.fetch_add(1, Ordering::SeqCst) + 1) == nth.parse() {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Nothing, in a build that is shipped.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn hit(_side: Side, _effect: Effect) {}
