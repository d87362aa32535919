//! Reading WAL bytes: pages, records, and what a segment contains. No I/O.
