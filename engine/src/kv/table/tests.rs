use super::*;

const A: SequenceId = SequenceId(0);
const B: SequenceId = SequenceId(1);

fn table(cells: usize, window: usize, chunk: usize) -> KvTable {
    let groups = vec![
        Group::new(None, (cells, cells), 2, chunk),
        Group::new(Some(window), (cells, cells), 2, chunk),
    ];
    KvTable::new(groups, cells, 2, 4096)
}

fn push(table: &mut KvTable, id: SequenceId, n: usize) -> Result<PlacedStep> {
    let from = table.length(id);
    table.prepare(&StepToken::run(id, from, &vec![7; n], false))
}

/// Every position that a token at the sequence's end can see lies in a cell of its own.
fn check_visible(table: &KvTable, id: SequenceId) {
    let sequence = &table.sequences[&id];
    for (group, entries) in table.groups.iter().zip(&sequence.entries) {
        let first = group.window.map_or(0, |window| (sequence.length + 1).saturating_sub(window));
        assert!(entries.oldest <= first, "window {:?}", group.window);
        let mut seen = std::collections::HashSet::new();
        for position in first..sequence.length {
            let block = entries.blocks[position / BLOCK % group.table_blocks].unwrap();
            assert!(seen.insert((block, position % BLOCK)));
        }
    }
}

#[test]
fn rings_keep_the_window_and_full_groups_everything() {
    let mut table = table(2048, 100, 32);
    assert_eq!(table.groups[1].table_blocks, 4);
    for _ in 0..60 {
        push(&mut table, A, 32).unwrap();
        check_visible(&table, A);
    }
    assert_eq!(table.length(A), 1920);
    let error = push(&mut table, A, 200).unwrap_err();
    assert!(matches!(error, Error::ContextFull { positions: 2048, .. }), "{error}");
    assert_eq!(table.length(A), 1920, "a failed step changes nothing");
    push(&mut table, A, 128).unwrap();
}

/// Sequences that are each short enough may be too long together: that is another fault than a context that is full.
#[test]
fn a_full_pool_is_no_full_context() {
    let mut table = KvTable::new(vec![Group::new(None, (256, 256), 2, 64)], 256, 2, 4096);
    push(&mut table, A, 192).unwrap();
    push(&mut table, B, 128).unwrap();
    let error = push(&mut table, B, 1).unwrap_err();
    let full = matches!(error, Error::PoolFull { wanted: 1, free: 0, pool: 320, block: 64, .. });
    assert!(full, "{error:?}");
    let said = error.to_string();
    assert!(said.ends_with("(sequence 0 holds 3, sequence 1 holds 2)"), "{said}");
    assert_eq!(table.length(B), 128, "a failed step changes nothing");
    let error = push(&mut table, SequenceId(3), 1).unwrap_err();
    assert!(matches!(error, Error::NoSeat), "{error:?}");
    table.free(A);
    push(&mut table, B, 128).unwrap();
    let error = push(&mut table, B, 1).unwrap_err();
    assert!(matches!(error, Error::ContextFull { wanted: 257, positions: 256, .. }), "{error:?}");
}

#[test]
fn truncate_answers_how_far_back_it_could_go() {
    let mut table = table(2048, 100, 32);
    push(&mut table, A, 30).unwrap();
    push(&mut table, A, 30).unwrap();
    assert_eq!(table.truncate(A, 40), 40);
    check_visible(&table, A);
    for _ in 0..20 {
        push(&mut table, A, 32).unwrap();
    }
    assert_eq!(table.length(A), 680);
    assert_eq!(table.truncate(A, 670), 670, "the ring still holds the window before 670");
    check_visible(&table, A);
    assert_eq!(table.truncate(A, 300), 0, "the ring has lost it");
    assert_eq!(table.length(A), 0);
    push(&mut table, A, 10).unwrap();
    assert_eq!(table.truncate(A, 99), 10);
}

#[test]
fn forks_share_blocks_until_one_writes() {
    let mut table = table(512, 1000, 32);
    push(&mut table, A, 100).unwrap();
    let free = table.pools[0].free.len();
    table.fork(A, B).unwrap();
    assert_eq!(table.pools[0].free.len(), free, "nothing is copied yet");
    let prepared = push(&mut table, B, 1).unwrap();
    assert_eq!(prepared.copies.len(), 2, "the half-filled block of each group");
    let a = table.blocks(A);
    let b = table.blocks(B);
    assert_eq!(a[0], b[0]);
    assert_ne!(a[1], b[1]);
    assert_eq!(push(&mut table, A, 1).unwrap().copies, []);
    table.free(A);
    table.free(B);
    assert!(table.pools.iter().zip(&table.groups).all(|(p, g)| p.free.len() == g.blocks));
}

#[test]
fn steps_must_continue_their_sequence() {
    let mut table = table(512, 100, 32);
    let error = table.prepare(&StepToken::run(A, 3, &[1], true)).unwrap_err();
    assert!(error.to_string().contains("position 3 does not continue"), "{error}");
    assert_eq!(table.free_seats.len(), 2);
    push(&mut table, A, 1).unwrap();
    push(&mut table, B, 1).unwrap();
    assert!(push(&mut table, SequenceId(9), 1).unwrap_err().to_string().contains("free one"));
}

#[test]
fn a_pool_may_hold_every_sequence_whole() {
    let table = |pool| KvTable::new(vec![Group::new(None, (256, pool), 2, 64)], 256, 2, 4096);
    let mut large = table(512);
    assert_eq!(push(&mut large, A, 256).unwrap().tokens.len(), 256);
    assert_eq!(push(&mut large, B, 256).unwrap().tokens.len(), 256);
    // The pool is what is full, and the sequence has its most: two different things to say.
    assert!(matches!(push(&mut large, B, 1), Err(Error::ContextFull { positions: 256, .. })));
    let mut small = table(256);
    push(&mut small, A, 256).unwrap();
    push(&mut small, B, 64).unwrap();
    assert!(matches!(push(&mut small, B, 1), Err(Error::PoolFull { wanted: 1, free: 0, .. })));
}
