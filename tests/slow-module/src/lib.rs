//! A PKCS#11 module for tests: hands every call to the module named by
//! `SLOW_MODULE_BEHIND`, and
//!
//! - waits `SLOW_MODULE_SIGN_US` microseconds in each `C_Sign` that returns a
//!   signature, not in one that asks for its size;
//! - counts, in `SLOW_MODULE_COUNTERS.PID` where that variable is set: five
//!   little-endian `u64`, as [`Counters`] names them. A reader may look at any
//!   time;
//! - with `SLOW_MODULE_TALKS` set, prints the PIN of each `C_Login`, as a module
//!   does whose maker left the debugging in.
//!
//! The list of functions is a copy of the one behind with few entries changed,
//! so what is not changed here costs nothing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, ptr};

use cryptoki_sys::{
    CK_BYTE_PTR, CK_FUNCTION_LIST, CK_FUNCTION_LIST_PTR, CK_FUNCTION_LIST_PTR_PTR,
    CK_MECHANISM_PTR, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CK_ULONG_PTR,
    CK_USER_TYPE, CK_UTF8CHAR_PTR, CKR_ARGUMENTS_BAD, CKR_FUNCTION_FAILED, CKR_OK,
};
use libloading::Library;

/// The module behind, and what is done before it.
struct Slow {
    behind: CK_FUNCTION_LIST,
    ours: CK_FUNCTION_LIST,
    delay: Duration,
    counters: Mutex<Counters>,
    file: Option<File>,
    /// Stays loaded for as long as its functions are called.
    _library: Library,
}

// SAFETY: a list of functions is never written to after it was made, and
// PKCS#11 says that each of them may be called from any thread.
unsafe impl Send for Slow {}
unsafe impl Sync for Slow {}

#[derive(Clone, Copy, Default)]
struct Counters {
    /// Calls of `C_SignInit`.
    sign_init: u64,
    /// Calls of `C_Sign`, of either kind.
    sign: u64,
    /// Calls of `C_Sign` with room for a signature.
    signatures: u64,
    /// How many of those are inside now.
    inside: u64,
    /// The most that ever were.
    most_inside: u64,
}

thread_local! {
    /// A thread's timers are 50 µs late by default, which a network is not.
    /// Where the system does not let us say so, they stay late.
    static PUNCTUAL: () = {
        let thread = fs::read_link("/proc/thread-self").unwrap_or_default();
        if let Some(id) = thread.file_name() {
            let _ = fs::write(Path::new("/proc").join(id).join("timerslack_ns"), "1");
        }
    };
}

static SLOW: OnceLock<Option<Slow>> = OnceLock::new();

impl Slow {
    fn load() -> Option<Self> {
        let behind = env::var_os("SLOW_MODULE_BEHIND")?;
        let micros = env::var("SLOW_MODULE_SIGN_US").map_or(Some(0), |text| text.parse().ok())?;
        let file = match env::var("SLOW_MODULE_COUNTERS") {
            Ok(path) => Some(File::create(format!("{path}.{}", std::process::id())).ok()?),
            Err(_) => None,
        };
        // SAFETY: the test named a PKCS#11 module; its entry point has this
        // type (PKCS#11 v3.1 section 5.4), and fills in a pointer to a list
        // that lives as long as the library.
        let (library, behind) = unsafe {
            let library = Library::new(behind).ok()?;
            let mut list: CK_FUNCTION_LIST_PTR = ptr::null_mut();
            let entry = library
                .get::<unsafe extern "C" fn(CK_FUNCTION_LIST_PTR_PTR) -> CK_RV>(
                    b"C_GetFunctionList",
                )
                .ok()?;
            if entry(&mut list) != CKR_OK || list.is_null() {
                return None;
            }
            let behind = *list;
            (library, behind)
        };
        let mut ours = behind;
        ours.C_GetFunctionList = Some(C_GetFunctionList);
        ours.C_SignInit = Some(sign_init);
        ours.C_Sign = Some(sign);
        if env::var_os("SLOW_MODULE_TALKS").is_some() {
            ours.C_Login = Some(login);
        }
        let slow = Self {
            behind,
            ours,
            delay: Duration::from_micros(micros),
            counters: Mutex::default(),
            file,
            _library: library,
        };
        slow.count(|_| {});
        Some(slow)
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut counters);
        let Counters {
            sign_init,
            sign,
            signatures,
            inside,
            most_inside,
        } = *counters;
        if let Some(file) = &self.file {
            let numbers = [sign_init, sign, signatures, inside, most_inside];
            let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
            // Under the lock, so that a reader never sees an older count after
            // a newer one.
            file.write_all_at(&bytes, 0).expect("the counters' file");
        }
    }

    fn wait(&self) {
        PUNCTUAL.with(|()| {});
        let began = Instant::now();
        while let Some(left) = self.delay.checked_sub(began.elapsed())
            && !left.is_zero()
        {
            sleep(left);
        }
    }
}

/// The entry point (PKCS#11 v3.1 section 5.4.4).
///
/// # Safety
/// `list` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let Some(slow) = SLOW.get_or_init(Slow::load) else {
        return CKR_FUNCTION_FAILED;
    };
    // SAFETY: not null, and the caller's to write to. Callers only read what
    // it points to, whatever the type says.
    unsafe { *list = ptr::from_ref(&slow.ours).cast_mut() };
    CKR_OK
}

unsafe extern "C" fn login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: CK_UTF8CHAR_PTR,
    len: CK_ULONG,
) -> CK_RV {
    let Some((_, behind)) = loaded(|list| list.C_Login) else {
        return CKR_FUNCTION_FAILED;
    };
    if !pin.is_null() {
        // SAFETY: the caller's PIN has this length (PKCS#11 v3.1 section 5.6.8).
        let pin = unsafe { std::slice::from_raw_parts(pin, len as usize) };
        eprintln!("C_Login: pin={}!", String::from_utf8_lossy(pin));
    }
    // SAFETY: handed through as it came.
    unsafe { behind(session, user, pin, len) }
}

unsafe extern "C" fn sign_init(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    let Some((slow, behind)) = loaded(|list| list.C_SignInit) else {
        return CKR_FUNCTION_FAILED;
    };
    slow.count(|counters| counters.sign_init += 1);
    // SAFETY: handed through as it came.
    unsafe { behind(session, mechanism, key) }
}

unsafe extern "C" fn sign(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_len: CK_ULONG,
    signature: CK_BYTE_PTR,
    signature_len: CK_ULONG_PTR,
) -> CK_RV {
    let Some((slow, behind)) = loaded(|list| list.C_Sign) else {
        return CKR_FUNCTION_FAILED;
    };
    let asks_for_the_size = signature.is_null();
    slow.count(|counters| {
        counters.sign += 1;
        if !asks_for_the_size {
            counters.signatures += 1;
            counters.inside += 1;
            counters.most_inside = counters.most_inside.max(counters.inside);
        }
    });
    if !asks_for_the_size {
        slow.wait();
    }
    // SAFETY: handed through as it came.
    let result = unsafe { behind(session, data, data_len, signature, signature_len) };
    if !asks_for_the_size {
        slow.count(|counters| counters.inside -= 1);
    }
    result
}

/// A function of the module behind. Whoever calls one of ours got it from the
/// list, so the list is there.
fn loaded<F>(function: impl FnOnce(&CK_FUNCTION_LIST) -> Option<F>) -> Option<(&'static Slow, F)> {
    let slow = SLOW.get()?.as_ref()?;
    Some((slow, function(&slow.behind)?))
}
