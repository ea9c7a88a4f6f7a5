//! What a crash keeps, loses or garbles, by chance.

use std::collections::{BTreeMap, BTreeSet};

use super::{Content, Dir, Node};

/// SplitMix64: enough chance for tests, and the same on every machine.
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        // Not uniform, which does not matter here.
        usize::try_from(self.throw() >> 32).unwrap_or(0) % bound
    }

    /// What was synced stays. Behind it each block was written or not, and the
    /// file's length may have become durable before the blocks or after.
    pub(super) fn content(&mut self, file: &Content) -> Vec<u8> {
        let common = (file.live.iter().zip(&file.durable))
            .take_while(|(a, b)| a == b)
            .count();
        if common == file.live.len() && common == file.durable.len() {
            return file.live.clone();
        }
        if common < file.durable.len() {
            // A cut that was not synced: done or undone.
            return if self.throw().is_multiple_of(2) {
                file.live.clone()
            } else {
                file.durable.clone()
            };
        }
        let end = common + self.below(file.live.len() - common + 1);
        let mut content = file.live[..end].to_vec();
        for block in content[common..].chunks_mut(64) {
            match self.below(4) {
                0 => block.fill(0),
                1 => block.iter_mut().for_each(|byte| *byte ^= 0x55),
                _ => {}
            }
        }
        for hole in &file.holes {
            let end = hole.end.min(content.len());
            if hole.start < end {
                content[hole.start..end].fill(0);
            }
        }
        content
    }

    /// Each name on its own: as it was synced, or as it is now.
    pub(super) fn names(&mut self, dir: &Dir) -> BTreeMap<String, Node> {
        let all: BTreeSet<&String> = dir.live.keys().chain(dir.durable.keys()).collect();
        let mut names = BTreeMap::new();
        for name in all {
            let from = if self.throw().is_multiple_of(2) {
                &dir.live
            } else {
                &dir.durable
            };
            if let Some(node) = from.get(name) {
                names.insert(name.clone(), *node);
            }
        }
        names
    }
}
