//! How the production crates scale with the number of nodes.
//!
//! [`contention`] has nodes fight for two pages, [`faults`] counts what one
//! fault takes, [`join`] forms whole clusters of
//! fabrics, [`report`] makes tables and plots of both. All of it is
//! deterministic, so that the tables in the documentation can be checked.

pub mod contention;
pub mod faults;
pub mod join;
pub mod report;
