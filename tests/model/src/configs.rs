//! The models that are explored.

use crate::config::{Config, May};

/// Loads, stores and messages in any order; nothing else.
const STILL: May = May {
    store_zero: false,
    evict: false,
    balance: false,
    ahead: false,
    prefetch: false,
    late_release: false,
    take_out: false,
    merge: false,
    die: false,
};
const EVICT: May = May { evict: true, ..STILL };
const BALANCE: May = May { balance: true, ..STILL };

/// Two neighbours, which one grant may cover.
const NEIGHBOURS: &[(u16, u64)] = &[(0, 0), (0, 1)];

const BASE: Config = Config {
    name: "",
    frames: &[2, 2],
    tables: None,
    reserve: 0,
    pages: &[(0, 0)],
    open_max: 2,
    puts_max: 1,
    asks_max: 2,
    may: EVICT,
    live: true,
    short: Some(usize::MAX),
    most: usize::MAX,
};

/// All models. Those that the short form does not explore to their end are
/// cut where all rows have been reached.
pub const ALL: &[Config] = &[
    Config { name: "2-nodes", may: May { store_zero: true, ..EVICT }, ..BASE },
    Config { name: "2-nodes-late-release", may: May { late_release: true, ..EVICT }, ..BASE },
    Config { name: "2-nodes-death", may: May { die: true, ..EVICT }, ..BASE },
    Config { name: "2-nodes-balance", frames: &[1, 1], reserve: 2, may: BALANCE, ..BASE },
    Config {
        name: "2-nodes-full",
        frames: &[1, 1],
        pages: NEIGHBOURS,
        live: false, // two masters and no frame to exchange them through
        ..BASE
    },
    Config { name: "3-nodes-still", frames: &[2, 2, 2], may: STILL, ..BASE },
    Config {
        name: "2-nodes-2-pages-balance",
        frames: &[1, 1],
        reserve: 2,
        pages: NEIGHBOURS,
        may: BALANCE,
        short: Some(50_000),
        ..BASE
    },
    Config {
        name: "2-nodes-2-pages",
        pages: NEIGHBOURS,
        puts_max: 2,
        short: Some(100_000),
        ..BASE
    },
    Config {
        name: "2-nodes-ahead",
        frames: &[3, 2],
        pages: NEIGHBOURS,
        may: May { ahead: true, ..EVICT },
        short: Some(200_000),
        ..BASE
    },
    Config {
        name: "2-nodes-prefetch",
        frames: &[3, 2],
        pages: NEIGHBOURS,
        may: May { prefetch: true, ..EVICT },
        short: Some(200_000),
        ..BASE
    },
    Config { name: "2-nodes-2-homes", pages: &[(0, 0), (1, 0)], short: Some(50_000), ..BASE },
    Config {
        name: "2-nodes-tables",
        // Of 12 and 9 frames: with a page and its table the first node can have
        // one of the other run as well, the second not before that table is gone.
        frames: &[3, 0],
        reserve: 8,
        tables: Some(1),
        pages: &[(0, 0), (1, 0)],
        may: May { take_out: true, ..EVICT },
        short: Some(100_000),
        most: 1_000_000,
        ..BASE
    },
    Config {
        name: "2-nodes-zeroes",
        pages: NEIGHBOURS,
        may: May { take_out: true, store_zero: true, ..EVICT },
        short: Some(100_000),
        most: 1_000_000,
        ..BASE
    },
    Config {
        name: "2-nodes-merge",
        // Two runs of frames, and more than a run besides what a run takes.
        frames: &[1540, 2],
        may: May { merge: true, late_release: true, store_zero: true, ..EVICT },
        ..BASE
    },
    Config { name: "3-nodes", frames: &[2, 2, 2], ..BASE },
    Config {
        name: "3-nodes-moves",
        frames: &[2, 2, 2],
        asks_max: 1,
        may: May { store_zero: true, ..EVICT },
        short: Some(400_000),
        ..BASE
    },
    Config {
        name: "3-nodes-death",
        frames: &[2, 2, 2],
        may: May { die: true, ..EVICT },
        short: Some(50_000),
        ..BASE
    },
    Config {
        name: "3-nodes-3-pages",
        frames: &[2, 1, 2],
        pages: &[(0, 0), (0, 1), (1, 0)],
        live: false,
        short: Some(50_000),
        most: 5_000_000, // its end is out of reach
        ..BASE
    },
];
