//! What is in a repository: object names, identity, WAL, base label and manifest.
