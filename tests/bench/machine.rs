//! The machine, and what its processes take of it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// What is said of the machine, in general words.
pub(crate) fn describe() -> Vec<String> {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("", |line| line.trim_start_matches([' ', '\t', ':']));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let memory: f64 = memory.map_or(0.0, number);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel: Vec<&str> = kernel.split('.').take(2).collect();
    let softhsm = Command::new("softhsm2-util").arg("--version").output();
    let softhsm = softhsm.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let mut said = vec![
        format!("{cores} processors ({model}), {:.0} GB", memory / 1e6),
        format!(
            "Linux {}; the log lies on {}",
            kernel.join("."),
            filesystem(&std::env::temp_dir())
        ),
        format!(
            "SoftHSM {} with its files as store",
            softhsm.unwrap_or_default()
        ),
    ];
    if let Ok(commit) = std::env::var("SEALKEEPER_COMMIT") {
        said.push(format!("commit {commit}"));
    }
    said
}

/// The kind of file system that holds a path.
fn filesystem(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let found = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        path.starts_with(at).then_some((at.len(), kind))
    });
    let kind = found.max_by_key(|(len, _)| *len).map(|(_, kind)| kind);
    match kind {
        Some("tmpfs") => "tmpfs, where a sync costs nothing: set TMPDIR to a real disk".to_owned(),
        kind => kind.unwrap_or("an unknown file system").to_owned(),
    }
}

/// How long the processors were at these processes, all their threads.
pub(crate) fn cpu(pids: &[u32]) -> Duration {
    pids.iter().map(|pid| cpu_of(*pid)).sum()
}

fn cpu_of(pid: u32) -> Duration {
    // Of a process that has gone: nothing.
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    // A tick is a hundredth of a second to whoever reads it (proc(5)).
    Duration::from_millis(ticks * 10)
}

/// The processes that a process started.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let files = tasks.flatten().map(|task| task.path().join("children"));
    let text: String = files
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// In megabytes: what is resident of these processes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Each page counted once, however many share it. None for whoever may
    /// not look.
    pub(crate) together: Option<f64>,
    /// Each process as if it were alone.
    pub(crate) sum: f64,
}

pub(crate) fn memory(pids: &[u32]) -> Memory {
    let mut all = Memory {
        together: Some(0.0),
        sum: 0.0,
    };
    for pid in pids {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(number)?;
            Some(value / 1e3)
        };
        all.sum += field("status", "VmRSS:").unwrap_or_default();
        let own = field("smaps_rollup", "Pss:");
        all.together = all.together.zip(own).map(|(all, own)| all + own);
    }
    all
}

/// The first number of a line, in kB there.
fn number(line: &str) -> f64 {
    let number = line.split_whitespace().next().and_then(|n| n.parse().ok());
    number.unwrap_or_default()
}
