//! Where bytes come from: paths, patterns, compressed files, a client's COPY stream.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::csv::{self, CsvOptions};
use super::{CopyFormat, RowSource, json, parquet};
use crate::error::{Error, Kind, Result};

/// Format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON object a line.
    Json,
    /// Parquet.
    Parquet,
}

impl Format {
    /// Reads the name of a format.
    pub fn parse(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => Ok(Self::Csv),
            "json" | "jsonl" | "ndjson" => Ok(Self::Json),
            "parquet" => Ok(Self::Parquet),
            other => {
                Err(Error::new(Kind::InvalidParameter, format!("format {other:?} is not known"))
                    .detail("known are csv, json (one object a line) and parquet"))
            }
        }
    }

    /// The format that a file's name tells, compression endings aside.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        let name = name.trim_end_matches(".gz").trim_end_matches(".zst").trim_end_matches(".zstd");
        match name.rsplit('.').next() {
            Some("csv" | "tsv" | "txt") => Ok(Self::Csv),
            Some("json" | "jsonl" | "ndjson") => Ok(Self::Json),
            Some("parquet" | "pq") => Ok(Self::Parquet),
            _ => Err(Error::new(
                Kind::InvalidParameter,
                format!("the format of {} cannot be told from its name", path.display()),
            )
            .hint("say it with --format csv, json or parquet")),
        }
    }
}

/// Files that the given paths mean: patterns and folders are expanded, in the order of names.
pub fn expand(paths: &[String]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let found = expand_one(path)?;
        if found.is_empty() {
            return Err(Error::new(Kind::UndefinedFile, format!("no file matches {path}")));
        }
        files.extend(found);
    }
    Ok(files)
}

fn expand_one(path: &str) -> Result<Vec<PathBuf>> {
    if Path::new(path).is_dir() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(path)?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<std::io::Result<Vec<_>>>()?
            .into_iter()
            // In a folder a .txt is a note more often than a table.
            .filter(|file| file.is_file() && Format::of(file).is_ok() && !is_text_file(file))
            .collect();
        files.sort();
        return Ok(files);
    }
    if Path::new(path).exists() || !path.contains(['*', '?', '[']) {
        return Ok(vec![PathBuf::from(path)]);
    }
    let bad = |e: &dyn std::fmt::Display| {
        Error::new(Kind::InvalidParameter, format!("pattern {path}: {e}"))
    };
    let mut files = glob::glob(path)
        .map_err(|e| bad(&e))?
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| bad(&e))?;
    files.retain(|file| file.is_file());
    Ok(files)
}

fn is_text_file(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("txt"))
}

/// A reader of rows from a file.
pub(super) fn open(path: &Path, format: Option<Format>, options: &CsvOptions) -> Result<RowSource> {
    let format = format.map_or_else(|| Format::of(path), Ok)?;
    if format == Format::Parquet {
        let file = File::open(path)?;
        return Ok(Box::new(move |wanted, sender| parquet::read(file, &wanted, &sender)));
    }
    let (text, count) = open_text(path)?;
    let options = options.for_file(path);
    Ok(Box::new(move |wanted, sender| match format {
        Format::Json => json::read(text, &count, &wanted, &sender),
        _ => csv::read(text, &count, &options, None, &wanted, &sender),
    }))
}

/// A text file, decompressed by what its first bytes say; the counter tells bytes read from disk.
pub(super) fn open_text(path: &Path) -> Result<(Box<dyn Read + Send>, Arc<AtomicU64>)> {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    /// Marks of both byte orders.
    const UTF16: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];
    let mut magic = [0u8; 4];
    let read = File::open(path)?.read(&mut magic)?;
    if read >= 2 && UTF16.contains(&[magic[0], magic[1]]) {
        return Err(Error::new(Kind::BadCopyFormat, "the file is UTF-16; a load takes UTF-8")
            .hint("iconv -f UTF-16 -t UTF-8 converts it; spreadsheets save as \"CSV UTF-8\""));
    }
    let count = Arc::new(AtomicU64::new(0));
    let counted = Counted { inner: File::open(path)?, count: Arc::clone(&count) };
    let buffered = BufReader::with_capacity(1 << 18, counted);
    let text: Box<dyn Read + Send> = if read >= 2 && magic[..2] == GZIP {
        Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
    } else if read == 4 && magic == ZSTD {
        Box::new(zstd::stream::read::Decoder::with_buffer(buffered)?)
    } else {
        Box::new(buffered)
    };
    Ok((text, count))
}

/// A reader of rows from what a client sends.
pub(super) fn from_channel(
    data: mpsc::Receiver<bytes::Bytes>,
    format: CopyFormat,
    columns: Option<Vec<String>>,
) -> RowSource {
    let count = Arc::new(AtomicU64::new(0));
    let text = Counted {
        inner: ChannelReader { data, current: bytes::Bytes::new() },
        count: Arc::clone(&count),
    };
    Box::new(move |wanted, sender| match format {
        CopyFormat::Csv(options) => {
            csv::read(Box::new(text), &count, &options, columns, &wanted, &sender)
        }
        CopyFormat::Text { delimiter, null, has_header } => {
            let style = csv::TextStyle { delimiter, null, has_header };
            csv::read_text(Box::new(text), &count, &style, columns, &wanted, &sender);
        }
    })
}

struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

struct ChannelReader {
    data: mpsc::Receiver<bytes::Bytes>,
    current: bytes::Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.data.blocking_recv() {
                Some(bytes) => self.current = bytes,
                None => return Ok(0),
            }
        }
        let taken = self.current.split_to(self.current.len().min(buf.len()));
        buf[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn compression_is_known_by_content() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("a.csv");
        std::fs::write(&plain, "x\n1\n").unwrap();
        let gz = dir.path().join("b.csv.gz");
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&gz).unwrap(), flate2::Compression::fast());
        encoder.write_all(b"x\n1\n").unwrap();
        encoder.finish().unwrap();
        let zst = dir.path().join("c.csv.zst");
        std::fs::write(&zst, zstd::encode_all(&b"x\n1\n"[..], 1).unwrap()).unwrap();
        for path in [&plain, &gz, &zst] {
            let mut text = String::new();
            open_text(path).unwrap().0.read_to_string(&mut text).unwrap();
            assert_eq!(text, "x\n1\n", "{}", path.display());
        }
        let pattern = format!("{}/*.csv*", dir.path().display());
        assert_eq!(expand(&[pattern]).unwrap().len(), 3);
        assert_eq!(expand(&[dir.path().display().to_string()]).unwrap().len(), 3);
        assert!(expand(&[format!("{}/*.json", dir.path().display())]).is_err());
    }
}
