//! A revocation holds from the order on, whatever fails.

use super::*;
use crate::agent::reader::Dark;
use crate::store::memory::Fault;

/// Found by review: once the disk had room again, the tombstone was not
/// written, and a restart brought the key back.
#[tokio::test]
async fn a_tombstone_that_found_no_room_is_written_once_there_is_some() {
    for dark in [false, true] {
        let bench = Bench::begun().await;
        let mut writer = bench.writer().await;
        writer.settle().await;
        let kid = writer.active();
        // Damage, so to say: no read of the store works, and no write.
        bench.store.fail_reads(usize::MAX);
        if dark {
            writer.load().await;
            assert!(matches!(writer.dark, Some(Dark::NoStore(_))));
        } else {
            bench.store.script([Fault::Full; 100]);
        }
        bench.disk.fail_syncs(usize::MAX);
        let changed = writer.order(revoke(&kid)).await.unwrap();
        assert!(!changed.durable);
        let said = changed.pending.join(" ");
        assert!(said.contains("do not restart"), "{said}");
        writer.tick().await;
        bench.disk.fail_syncs(0);
        writer.tick().await;
        assert!(writer.owed[&kid].entombed);
        // And then it is left in peace.
        let operations = bench.disk.operations().len();
        writer.tick().await;
        assert_eq!(bench.disk.operations().len(), operations);
        drop(writer);

        bench.store.script([]);
        bench.store.fail_reads(0);
        let mut writer = bench.writer().await;
        assert!(!writer.shown().contains(&kid), "it is back");
        assert!(writer.reader.is_blocked(&kid), "it signs again");
        writer.settle().await;
        assert!(writer.owed.is_empty());
    }
}
