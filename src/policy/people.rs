//! Which callers are which people, for what one person may not do alone.

use std::collections::BTreeMap;

use super::{Caller, CallerId};
use crate::time::Span;

/// That some orders wait for a second person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approvals {
    /// Who counts as a person. Whoever is not among them neither asks nor
    /// agrees: one person may have many accounts.
    pub people: People,
    /// For how long a request waits.
    pub lifetime: Span,
}

/// People by the ids with which they come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct People(BTreeMap<CallerId, String>);

impl People {
    /// Adds an id of a person; says whose it was before.
    pub fn add(&mut self, id: CallerId, person: &str) -> Option<String> {
        self.0.insert(id, person.to_owned())
    }

    /// How many people there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let names: std::collections::BTreeSet<&String> = self.0.values().collect();
        names.len()
    }

    /// The person that a caller is. Nobody where its names are those of two.
    #[must_use]
    pub fn person(&self, caller: &Caller) -> Option<&str> {
        let ids = caller.ids();
        let mut people = ids.iter().filter_map(|id| self.0.get(id));
        let first = people.next()?;
        people.all(|other| other == first).then_some(first)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test says what it expects")]
mod tests {
    use super::super::Names;
    use super::*;

    #[test]
    fn several_accounts_are_one_person() {
        let mut people = People::default();
        for (id, person) in [
            ("unix:1000", "anna"),
            ("unix:1001", "anna"),
            ("dns:anna.example", "anna"),
            ("dns:ben.example", "ben"),
        ] {
            assert_eq!(people.add(id.parse().unwrap(), person), None);
        }
        assert_eq!(people.count(), 2);
        let unix = |uid| Caller::Unix {
            uid,
            gid: uid,
            groups: [].into(),
            pid: None,
        };
        assert_eq!(people.person(&unix(1000)), Some("anna"));
        assert_eq!(people.person(&unix(1001)), Some("anna"));
        assert_eq!(people.person(&unix(0)), None);
        let tls = |names: &[&str]| Caller::Tls {
            names: Names::parse(&[], names).unwrap(),
        };
        assert_eq!(
            people.person(&tls(&["anna.example", "x.example"])),
            Some("anna")
        );
        assert_eq!(people.person(&tls(&["anna.example", "ben.example"])), None);
        let taken = people.add("unix:1000".parse().unwrap(), "ben");
        assert_eq!(taken.as_deref(), Some("anna"));
    }
}
