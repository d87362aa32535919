//! Whole histories, made up and pruned. What is promised is looked for by an oracle that knows nothing of paths and extents: object by
//! object, from the backup up to the point.

mod cases;
mod execution;
mod held;
mod history;
mod promises;
