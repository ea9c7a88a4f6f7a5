//! Rules: whether anybody is let in, and can get as far as the socket.

use super::Report;
use super::machine::{self, Access, Unknown};
use crate::config::Config;

/// The name of these checks.
const RULES: &str = "rules";

pub(super) fn look(config: &Config, report: &mut Report) {
    let socket = std::fs::metadata(&config.serve.signing_socket);
    let socket = socket.ok().map(|meta| Access::of(&meta));
    for (name, set) in &config.key_sets {
        let rules = set.rules.rules();
        if rules.is_empty() {
            report.warn(
                RULES,
                name,
                "there are none: nothing is signed for anybody",
                format!("add [[key_set.{name}.rule]] with a name, uid = [...] and operations = [\"sign-jwt\"]"),
            );
            continue;
        }
        let mut good = true;
        for rule in rules {
            let of = format!("{name}.{}", rule.name);
            for uid in rule.who.uids.iter().flatten() {
                good &= caller(*uid, &of, socket, report);
            }
            for gid in rule.who.gids.iter().flatten() {
                if machine::group(*gid) == Err(Unknown::Nobody) {
                    good = false;
                    report.warn(
                        RULES,
                        &of,
                        format!("no group of this machine has the gid {gid}"),
                        "correct the rule's gid, or make the group",
                    );
                }
            }
        }
        if good {
            report.ok(RULES, name, format!("{} of them", rules.len()));
        }
    }
}

/// A user who is let in by a rule: is there one, and can they connect?
fn caller(uid: u32, of: &str, socket: Option<Access>, report: &mut Report) -> bool {
    let user = match machine::user(uid) {
        Ok(user) => user,
        Err(Unknown::CannotTell) => return true,
        Err(Unknown::Nobody) => {
            report.warn(
                RULES,
                of,
                format!("no user of this machine has the uid {uid}"),
                "correct the rule's uid (`id -u NAME` shows it), or make the user",
            );
            return false;
        }
    };
    let Some(socket) = socket else {
        return true; // That it is not there was said.
    };
    let mut groups = vec![user.gid];
    if machine::group(socket.gid).is_ok_and(|group| group.members.contains(&user.name)) {
        groups.push(socket.gid);
    }
    if socket.may_connect(user.uid, &groups) {
        return true;
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
            "serve.socket_mode = \"0660\", and `usermod -aG {} {}`",
            machine::group(socket.gid).map_or("GROUP".to_owned(), |group| group.name),
            user.name
        ),
    );
    false
}
