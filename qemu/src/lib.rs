//! Starts emulated nodes and the links between them.
