//! What both programs show a person: errors and exit codes, tables, progress, JSON.
