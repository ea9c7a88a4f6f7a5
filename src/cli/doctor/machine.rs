//! Users and groups of this machine, by way of getent(1): it knows directory
//! services too, and their libraries stay out of this process.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::{Command, Stdio};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    /// The primary group.
    pub(super) gid: u32,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    /// Those for whom it is not the primary group.
    pub(super) members: Vec<String>,
}

/// Why the machine does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// There is none of that number.
    Nobody,
    /// It could not be asked.
    CannotTell,
}

pub(super) fn user(uid: u32) -> Result<User, Unknown> {
    let line = getent("passwd", uid)?;
    let fields: Vec<&str> = line.trim_end().split(':').collect();
    match fields.as_slice() {
        [name, _, uid, gid, ..] => Ok(User {
            name: (*name).to_owned(),
            uid: uid.parse().map_err(|_| Unknown::CannotTell)?,
            gid: gid.parse().map_err(|_| Unknown::CannotTell)?,
        }),
        _ => Err(Unknown::CannotTell),
    }
}

pub(super) fn group(gid: u32) -> Result<Group, Unknown> {
    let line = getent("group", gid)?;
    let fields: Vec<&str> = line.trim_end().split(':').collect();
    match fields.as_slice() {
        [name, _, _, members] => Ok(Group {
            name: (*name).to_owned(),
            members: members
                .split(',')
                .filter(|member| !member.is_empty())
                .map(str::to_owned)
                .collect(),
        }),
        _ => Err(Unknown::CannotTell),
    }
}

/// getent(1): 0 found, 2 not found.
fn getent(database: &str, id: u32) -> Result<String, Unknown> {
    let output = Command::new("getent")
        .args([database, &id.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|_| Unknown::CannotTell)?;
    match output.status.code() {
        Some(0) => String::from_utf8(output.stdout).map_err(|_| Unknown::CannotTell),
        Some(2) => Err(Unknown::Nobody),
        _ => Err(Unknown::CannotTell),
    }
}

/// `www-data (uid 33)`.
pub(super) fn user_name(uid: u32) -> String {
    match user(uid) {
        Ok(user) => format!("{} (uid {uid})", user.name),
        Err(_) => format!("uid {uid}"),
    }
}

/// `ssl-cert (gid 110)`.
pub(super) fn group_name(gid: u32) -> String {
    match group(gid) {
        Ok(group) => format!("{} (gid {gid})", group.name),
        Err(_) => format!("gid {gid}"),
    }
}

/// Owner, group and mode of a file, as the kernel decides by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) socket: bool,
}

impl Access {
    pub(super) fn of(meta: &std::fs::Metadata) -> Self {
        Self {
            uid: meta.uid(),
            gid: meta.gid(),
            mode: meta.mode() & 0o7777,
            socket: meta.file_type().is_socket(),
        }
    }

    /// Whether this user may connect (unix(7): that takes permission to
    /// write). `groups` are all of theirs.
    pub(super) fn may_connect(self, uid: u32, groups: &[u32]) -> bool {
        if uid == 0 {
            return true;
        }
        let bits = if uid == self.uid {
            self.mode >> 6
        } else if groups.contains(&self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        bits & 0o2 != 0
    }

    /// For people.
    pub(super) fn shown(self) -> String {
        format!(
            "mode {:04o}, owner {}, group {}",
            self.mode,
            user_name(self.uid),
            group_name(self.gid)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_a_number_of_nobodys_is_not() {
        let root = user(0);
        assert_eq!(
            root.as_ref().map(|user| (&*user.name, user.uid)),
            Ok(("root", 0))
        );
        assert_eq!(user(4_000_000_000), Err(Unknown::Nobody));
        assert_eq!(group(4_000_000_000), Err(Unknown::Nobody));
        assert_eq!(group_name(0), "root (gid 0)");
        assert_eq!(user_name(4_000_000_000), "uid 4000000000");
    }

    #[test]
    fn who_may_connect_is_the_kernels_rule() {
        let socket = |mode| Access {
            uid: 10,
            gid: 20,
            mode,
            socket: true,
        };
        for (mode, uid, groups, may) in [
            (0o660, 10, &[][..], true),
            (0o660, 11, &[20][..], true),
            (0o660, 11, &[21][..], false),
            (0o600, 11, &[20][..], false),
            (0o660, 0, &[][..], true),
            // The owner's bits count for the owner, though the group has more.
            (0o060, 10, &[20][..], false),
            (0o440, 10, &[20][..], false),
        ] {
            assert_eq!(socket(mode).may_connect(uid, groups), may, "{mode:o} {uid}");
        }
    }
}
