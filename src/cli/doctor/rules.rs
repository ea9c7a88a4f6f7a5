//! Rules: whether anybody is let in, and can get as far as the socket.

use super::machine::{self, Access, Unknown};
use super::{RELOAD, Report, counted};
use crate::cli::policy;
use crate::config::Config;
use crate::policy::rules::Matcher;
use crate::policy::{Caller, Rule};

/// The name of these checks.
const RULES: &str = "rules";

pub(super) fn look(config: &Config, report: &mut Report) {
    let socket = std::fs::metadata(&config.serve.signing_socket);
    let socket = socket.ok().map(|meta| Access::of(&meta));
    let us = policy::own_caller().ok();
    for (name, set) in &config.key_sets {
        let rules = set.rules.rules();
        if rules.is_empty() {
            report.fail(
                RULES,
                name,
                "there are none: nothing is signed for anybody",
                format!("add [[key_set.{name}.rule]] with a name, uid = [...] and operations = [\"sign-jwt\"], {RELOAD}"),
            );
            continue;
        }
        if !rules
            .iter()
            .any(|rule| is_about_somebody(&rule.who, config))
        {
            nobody(name, rules, report);
            continue;
        }
        for rule in rules {
            let of = format!("{name}.{}", rule.name);
            for uid in rule.who.uids.iter().flatten() {
                caller(*uid, &of, socket, report);
            }
            for gid in rule.who.gids.iter().flatten() {
                if machine::group(*gid) == Err(Unknown::Nobody) {
                    report.warn(
                        RULES,
                        &of,
                        format!("no group of this machine has the gid {gid}"),
                        format!("correct the rule's gid, {RELOAD}"),
                    );
                }
            }
        }
        let ours = |us: &Caller| rules.iter().any(|rule| rule.who.matches(us));
        let others = us.as_ref().filter(|us| !ours(us));
        let others =
            others.map(|us| format!(", and none is about you, {us}{}", closest(rules, us)));
        let number = counted(rules.len(), "rule");
        report.ok(RULES, name, number + &others.unwrap_or_default());
    }
}

/// The rule that fewest of its fields keep a caller out of, and which.
fn closest(rules: &[Rule], caller: &Caller) -> String {
    let missed = rules.iter().map(|rule| (rule.who.misses(caller), rule));
    let closest = missed.min_by_key(|(misses, _)| misses.len());
    closest.map_or_else(String::new, |(misses, rule)| {
        format!(": the rule {:?} {}", rule.name, misses.join(", and "))
    })
}

/// No rule lets anybody in who can be here.
fn nobody(name: &str, rules: &[Rule], report: &mut Report) {
    let mut absent = Vec::new();
    for rule in rules {
        let who = &rule.who;
        let uids = who.uids.iter().flatten();
        let uids = uids.filter(|uid| machine::user(**uid) == Err(Unknown::Nobody));
        absent.extend(uids.map(|uid| format!("no user has the uid {uid}")));
        let gids = who.gids.iter().flatten();
        let gids = gids.filter(|gid| machine::group(**gid) == Err(Unknown::Nobody));
        absent.extend(gids.map(|gid| format!("no group has the gid {gid}")));
        if who.dns.is_some() || who.spiffe.is_some() {
            absent.push("there is no TLS listener to show a certificate to".to_owned());
        }
    }
    absent.dedup();
    let us = rustix::process::geteuid().as_raw();
    report.fail(
        RULES,
        name,
        format!(
            "nothing is signed for anybody: its {} can let in nobody who is here ({}), and so not you, unix:{us}",
            counted(rules.len(), "rule"),
            absent.join(", ")
        ),
        format!(
            "name users or groups that this machine has (`id NAME` shows them), {RELOAD}; `sealkeeper policy test CLAIMS` says whether you may sign then"
        ),
    );
}

/// Whether a caller can be there whom this is about. Where the machine does
/// not say, there may be one.
fn is_about_somebody(who: &Matcher, config: &Config) -> bool {
    let user = |uid: &u32| machine::user(*uid) != Err(Unknown::Nobody);
    let group = |gid: &u32| machine::group(*gid) != Err(Unknown::Nobody);
    let by_certificate = who.dns.is_some() || who.spiffe.is_some();
    who.uids.as_ref().is_none_or(|uids| uids.iter().any(user))
        && who.gids.as_ref().is_none_or(|gids| gids.iter().any(group))
        && (!by_certificate || config.serve.signing_tls.is_some())
}

/// A user who is let in by a rule: is there one, and can they connect?
fn caller(uid: u32, of: &str, socket: Option<Access>, report: &mut Report) {
    let user = match machine::user(uid) {
        Ok(user) => user,
        Err(Unknown::CannotTell) => return,
        Err(Unknown::Nobody) => {
            return report.warn(
                RULES,
                of,
                format!("no user of this machine has the uid {uid}"),
                format!("correct the rule's uid (`id -u NAME` shows it), {RELOAD}"),
            );
        }
    };
    let Some(socket) = socket else {
        return; // That it is not there was said.
    };
    let mut groups = vec![user.gid];
    if machine::group(socket.gid).is_ok_and(|group| group.members.contains(&user.name)) {
        groups.push(socket.gid);
    }
    if socket.may_connect(user.uid, &groups) {
        return;
    }
    report.warn(
        RULES,
        of,
        format!(
            "{} (uid {uid}) is let in by the rule, and kept out by the signing socket: {}",
            user.name,
            socket.shown()
        ),
        format!(
            "serve.socket_mode = \"0660\", and `usermod -aG {} {}`; then restart the agent and the caller",
            machine::group(socket.gid).map_or("GROUP".to_owned(), |group| group.name),
            user.name
        ),
    );
}
