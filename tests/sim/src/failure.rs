//! How a run fails.

use addr::Gfn;

/// What kind of failure it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A node panicked or stopped itself.
    Crash,
    /// Something that must happen in time did not.
    Liveness,
    /// Wrong data, or state that contradicts itself.
    Correctness,
}

/// A failed run.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The kind.
    pub class: Class,
    /// The page it is about.
    pub page: Option<Gfn>,
    /// What happened.
    pub what: String,
}

impl Failure {
    /// A failure that is not about one page.
    pub fn new(class: Class, what: impl Into<String>) -> Failure {
        Failure { class, page: None, what: what.into() }
    }

    /// A failure of one page.
    pub fn about(class: Class, page: Gfn, what: impl Into<String>) -> Failure {
        Failure { class, page: Some(page), what: what.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let class = match self.class {
            Class::Crash => "crash",
            Class::Liveness => "liveness",
            Class::Correctness => "correctness",
        };
        write!(f, "{class}: {}", self.what)
    }
}
