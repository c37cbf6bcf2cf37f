//! The rules of the house, as tests: who may depend on whom, where unsafe code
//! may stand, how large things may grow. See `kernel/README.md`.
