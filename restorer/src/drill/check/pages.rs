//! Every page, on the stopped instance: by `pg_checksums` where pages have checksums, else by the rule that PostgreSQL itself has
//! for a page that it reads.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::drill::report::Found;
use crate::instance::{Instance, InstanceError};

/// Lines that are kept.
const MOST: usize = 100;

/// Bytes of a page's header (`SizeOfPageHeaderData`, bufpage.h).
const HEADER: usize = 24;

/// The layout version of pages since PostgreSQL 8.3 (`PG_PAGE_LAYOUT_VERSION`).
const LAYOUT: u16 = 4;

/// Looks at every page.
///
/// Errors: the program is not here, or ended otherwise than with an answer; the disk.
pub async fn look(instance: &Instance) -> Result<Found, InstanceError> {
    let control = instance.control()?;
    if control.has_checksums() {
        return checksums(instance).await;
    }
    let size = control.page_size().filter(|size| size.is_power_of_two() && *size > HEADER).ok_or_else(|| {
        let said = "it does not say how large a page is".to_owned();
        InstanceError::Call { program: "pg_controldata".to_owned(), said }
    })?;
    let data = instance.data().to_owned();
    let read = tokio::task::spawn_blocking(move || read_all(&data, size)).await;
    let read = read.map_err(|error| InstanceError::io("read", instance.data())(io::Error::other(error)))?;
    let Reading { pages, wrong } = read?;
    let words = format!("{pages} pages read, without checksums: the cluster has none (initdb --data-checksums)");
    match wrong.first().cloned() {
        None => Ok(Found::good(words)),
        Some(first) => Ok(Found::bad(format!("{first}; {words}")).with(wrong)),
    }
}

async fn checksums(instance: &Instance) -> Result<Found, InstanceError> {
    let mut call = instance.command("pg_checksums")?;
    call.args(["--check", "-D"]).arg(instance.data());
    let output = call.output().await.map_err(InstanceError::io("run pg_checksums on", instance.data()))?;
    let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let figure = |name: &str| said.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    let (blocks, bad) = (figure("Blocks scanned:"), figure("Bad checksums:"));
    match (output.status.success(), blocks, bad.as_deref()) {
        (true, Some(blocks), Some("0")) => Ok(Found::good(format!("{blocks} pages, every checksum agrees"))),
        (_, Some(blocks), Some(bad)) if bad != "0" => {
            let details = complaints.lines().take(MOST).map(str::to_owned).collect();
            Ok(Found::bad(format!("{bad} of {blocks} pages have a wrong checksum")).with(details))
        }
        _ => {
            let said = complaints.trim().to_owned();
            Err(InstanceError::Call { program: "pg_checksums".to_owned(), said })
        }
    }
}

#[derive(Debug, Default)]
struct Reading {
    pages: u64,
    wrong: Vec<String>,
}

/// Reads every page of every relation below a data directory, tablespaces too.
fn read_all(data: &Path, size: usize) -> Result<Reading, InstanceError> {
    let mut read = Reading::default();
    let mut folders: Vec<PathBuf> = ["base", "global", "pg_tblspc"].iter().map(|name| data.join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(InstanceError::io("list", &folder))? {
            let path = entry.map_err(InstanceError::io("list", &folder))?.path();
            // Tablespaces are links.
            let found = std::fs::metadata(&path).map_err(InstanceError::io("look at", &path))?;
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if found.is_dir() {
                folders.push(path);
            } else if is_relation(name) {
                read_file(&path, size, &mut read)?;
            }
        }
    }
    Ok(read)
}

/// `16384`, `16384.1`, `16384_fsm`, …: files of pages.
fn is_relation(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (name, segment) = name.split_once('.').map_or((name, None), |(name, segment)| (name, Some(segment)));
    let (number, fork) = name.split_once('_').map_or((name, None), |(number, fork)| (number, Some(fork)));
    digits(number) && segment.is_none_or(digits) && fork.is_none_or(|fork| matches!(fork, "fsm" | "vm" | "init"))
}

fn read_file(path: &Path, size: usize, read: &mut Reading) -> Result<(), InstanceError> {
    let mut file = File::open(path).map_err(InstanceError::io("open", path))?;
    let mut page = vec![0; size];
    for number in 0u64.. {
        let mut filled = 0;
        while filled < size {
            let rest = page.get_mut(filled..).unwrap_or_default();
            match file.read(rest).map_err(InstanceError::io("read", path))? {
                0 => break,
                bytes => filled += bytes,
            }
        }
        if filled == 0 {
            break;
        }
        read.pages += 1;
        let why = if filled < size { Some("it is cut off".to_owned()) } else { why_wrong(&page) };
        if let Some(why) = why
            && read.wrong.len() < MOST
        {
            read.wrong.push(format!("page {number} of {}: {why}", path.display()));
        }
    }
    Ok(())
}

/// What is wrong with a page, by the rule of `PageIsVerified` (bufpage.c): nothing but zeros, or a header that makes sense.
fn why_wrong(page: &[u8]) -> Option<String> {
    let field = |at: usize| Some(u16::from_le_bytes(page.get(at..at + 2)?.try_into().ok()?));
    let (flags, lower, upper) = (field(10)?, field(12)?, field(14)?);
    let (special, version) = (field(16)?, field(18)?);
    if upper == 0 {
        return page.iter().any(|byte| *byte != 0).then(|| "it is neither new nor a page".to_owned());
    }
    let size = page.len();
    let ordered = HEADER <= usize::from(lower) && lower <= upper && upper <= special && usize::from(special) <= size;
    let sound = ordered && special % 8 == 0 && flags & !0x7 == 0;
    // A page of 64 KiB does not exist; the low byte is the layout's version.
    let known = usize::from(version & 0xFF00) == size && version & 0xFF == LAYOUT;
    (!(sound && known)).then(|| "its header makes no sense".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Vec<u8> {
        let mut page = vec![0; 8192];
        for (at, value) in [(12, 28u16), (14, 8000), (16, 8192), (18, 8192 | LAYOUT)] {
            page[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        page
    }

    #[test]
    fn pages_are_judged_as_postgresql_does() {
        assert_eq!(why_wrong(&page()), None);
        assert_eq!(why_wrong(&vec![0; 8192]), None, "a new page");
        for (at, value) in
            [(10, 8u16), (12, 4), (12, 8100), (14, 8191), (14, 0), (16, 8190), (18, 4096 | LAYOUT), (18, 8197)]
        {
            let mut broken = page();
            broken[at..at + 2].copy_from_slice(&value.to_le_bytes());
            if (at, value) == (14, 8191) {
                assert_eq!(why_wrong(&broken), None, "no more is promised");
            } else {
                assert!(why_wrong(&broken).is_some(), "{value} at {at}");
            }
        }
    }

    #[test]
    fn files_of_pages_are_known_by_their_names() {
        for name in ["16384", "16384.1", "16384_fsm", "16384_vm.2", "1_init"] {
            assert!(is_relation(name), "{name}");
        }
        for name in ["PG_VERSION", "pg_filenode.map", "16384_x", "16384.", "t3_16384", "16384.tmp", ""] {
            assert!(!is_relation(name), "{name}");
        }
    }
}
