//! How the production crates scale with the number of nodes.
//!
//! [`contention`] has nodes fight for two pages, [`faults`] counts what one
//! fault takes, [`join`] forms whole clusters of
//! fabrics, [`spread`] has a small node use pages all over a large guest,
//! [`report`] makes tables and plots. All of it is
//! deterministic, so that the tables in the documentation can be checked.

pub mod contention;
pub mod faults;
pub mod join;
pub mod report;
pub mod spread;
