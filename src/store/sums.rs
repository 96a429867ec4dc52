//! Checksums of data files: a bad disk is an error, never a wrong number.
//!
//! Parquet has no checksum that its reader looks at: four of five flipped bits give a wrong answer without a word. So a
//! CRC-32 of every block is computed from the bytes on their way out, kept in the table's log beside the file's name, and
//! compared with what comes back from the disk before anything decodes it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, coalesce_ranges,
};

use crate::error::{Error, Kind};

/// Smallest block, as a power of two: 64 KiB.
const SHIFT_MIN: u32 = 16;

/// Most sums of a file; a larger one has larger blocks.
const SUMS_MAX: usize = 1024;

/// The checksums of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSums {
    /// A block has two to this power bytes, the last one fewer.
    shift: u32,
    /// Bytes of the file.
    size: u64,
    sums: Vec<u32>,
}

impl BlockSums {
    /// As the log keeps them.
    pub(super) fn encode(&self) -> String {
        let bytes: Vec<u8> = self.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        format!("{}:{}", self.shift, STANDARD_NO_PAD.encode(bytes))
    }

    /// From the log; `None` when it cannot be what was written for a file of `size` bytes.
    pub(super) fn decode(text: &str, size: u64) -> Option<Self> {
        let (shift, sums) = text.split_once(':')?;
        let shift = shift.parse().ok().filter(|shift| (SHIFT_MIN..48).contains(shift))?;
        let bytes = STANDARD_NO_PAD.decode(sums).ok()?;
        let (words, rest) = bytes.as_chunks::<4>();
        let sums: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let is_whole = rest.is_empty() && sums.len() as u64 == size.div_ceil(1 << shift);
        is_whole.then_some(Self { shift, size, sums })
    }

    /// Whole blocks around `range`.
    fn widened(&self, range: &Range<u64>) -> Range<u64> {
        let block = 1u64 << self.shift;
        let end = range.end.min(self.size).div_ceil(block) * block;
        range.start.min(self.size) / block * block..end.min(self.size)
    }

    /// Where `bytes`, which begin with a block at `start`, differ from what was written.
    fn first_damage(&self, start: u64, bytes: &[u8]) -> Option<u64> {
        let first = (start >> self.shift) as usize;
        let blocks = bytes.chunks(1 << self.shift).enumerate();
        let is_bad =
            |(i, block): &(usize, &[u8])| self.sums.get(first + i) != Some(&crc32fast::hash(block));
        let (i, _) = { blocks }.find(is_bad)?;
        Some(((first + i) as u64) << self.shift)
    }
}

/// Sums up the bytes of a file as they are written.
#[derive(Default)]
pub(super) struct Summing {
    done: Vec<crc32fast::Hasher>,
    open: crc32fast::Hasher,
    in_open: usize,
    size: u64,
}

impl Summing {
    /// More bytes.
    pub(super) fn sum_up(&mut self, mut bytes: &[u8]) {
        const BLOCK: usize = 1 << SHIFT_MIN;
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - self.in_open));
            self.open.update(now);
            self.in_open += now.len();
            if self.in_open == BLOCK {
                self.done.push(std::mem::take(&mut self.open));
                self.in_open = 0;
            }
            bytes = rest;
        }
    }

    /// The sums of all that was written.
    pub(super) fn finish(mut self) -> BlockSums {
        if self.in_open > 0 {
            self.done.push(self.open);
        }
        let mut shift = SHIFT_MIN;
        while self.done.len() > SUMS_MAX {
            shift += 1;
            self.done = self
                .done
                .chunks(2)
                .map(|pair| {
                    let mut both = pair[0].clone();
                    pair.iter().skip(1).for_each(|second| both.combine(second));
                    both
                })
                .collect();
        }
        let sums = self.done.into_iter().map(crc32fast::Hasher::finalize).collect();
        BlockSums { shift, size: self.size, sums }
    }
}

/// One data file that is compared with its checksums as it is read.
#[derive(Debug)]
pub(crate) struct CheckedFile {
    inner: Arc<dyn ObjectStore>,
    sums: Arc<BlockSums>,
}

impl CheckedFile {
    /// Reads of a file with `sums` through `inner`.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, sums: Arc<BlockSums>) -> Self {
        Self { inner, sums }
    }

    /// Whole blocks, compared.
    async fn blocks(&self, location: &Path, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let read = self.inner.get_range(location, range.clone()).await;
        let bytes = match read {
            Ok(bytes) if bytes.len() as u64 == range.end - range.start => bytes,
            Ok(_) => return Err(self.why_not(location).await),
            Err(error @ object_store::Error::NotFound { .. }) => {
                return Err(damaged(location, "is missing", Some(&error)));
            }
            Err(error) => {
                // A range past the end of a file that was cut off fails in its own way.
                let size = self.inner.head(location).await.map(|meta| meta.size);
                return Err(match size {
                    Ok(size) if size != self.sums.size => self.why_not(location).await,
                    _ => error,
                });
            }
        };
        match self.sums.first_damage(range.start, &bytes) {
            None => Ok(bytes),
            Some(offset) => Err(damaged(
                location,
                &format!("is damaged at byte {offset}: its checksum does not match"),
                None,
            )),
        }
    }

    async fn why_not(&self, location: &Path) -> object_store::Error {
        let expected = self.sums.size;
        match self.inner.head(location).await {
            Ok(meta) => {
                damaged(location, &format!("has {} bytes instead of {expected}", meta.size), None)
            }
            Err(error) => damaged(location, "is missing", Some(&error)),
        }
    }

    /// Compares the whole file, a few blocks at a time.
    pub(crate) async fn verify(&self, location: &Path) -> Result<()> {
        const STEP: u64 = 8 << 20;
        let step = STEP.max(1 << self.sums.shift);
        let size = self.inner.head(location).await.map(|meta| meta.size);
        if !size.is_ok_and(|size| size == self.sums.size) {
            return Err(self.why_not(location).await);
        }
        let mut at = 0;
        while at < self.sums.size {
            self.blocks(location, at..(at + step).min(self.sums.size)).await?;
            at += step;
        }
        Ok(())
    }
}

fn damaged(
    location: &Path,
    what: &str,
    cause: Option<&object_store::Error>,
) -> object_store::Error {
    let error = Error::new(Kind::DataCorrupted, format!("data file \"{location}\" {what}"))
        .hint("restore the file from a backup; other tables are not touched by this");
    let error = match cause {
        Some(_) => error
            .detail("the table's log names it, and nothing of this program removes such a file"),
        None => error,
    };
    object_store::Error::Generic { store: "checksums", source: Box::new(error) }
}

fn not_for_writing() -> object_store::Error {
    object_store::Error::NotSupported { source: "data files are read through this".into() }
}

impl fmt::Display for CheckedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckedFile({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for CheckedFile {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head {
            return self.inner.get_opts(location, options).await;
        }
        let size = self.sums.size;
        let range = match &options.range {
            None => 0..size,
            Some(GetRange::Bounded(range)) => range.start..range.end.min(size),
            Some(GetRange::Offset(from)) => *from..size,
            Some(GetRange::Suffix(last)) => size.saturating_sub(*last)..size,
        };
        let wide = self.sums.widened(&range);
        let bytes = self.blocks(location, wide.clone()).await?;
        let bytes = inner_slice(&bytes, &wide, &range);
        let meta = ObjectMeta {
            location: location.clone(),
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size,
            e_tag: None,
            version: None,
        };
        let stream = futures::stream::once(async move { Ok(bytes) }).boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream),
            meta,
            range,
            attributes: object_store::Attributes::default(),
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let wide: Vec<Range<u64>> = ranges.iter().map(|r| self.sums.widened(r)).collect();
        let read = coalesce_ranges(&wide, |range| self.blocks(location, range).boxed(), 0).await?;
        let pairs = ranges.iter().zip(&wide).zip(read);
        Ok(pairs.map(|((range, wide), bytes)| inner_slice(&bytes, wide, range)).collect())
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(not_for_writing())
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(not_for_writing())
    }

    fn delete_stream(
        &self,
        _: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        futures::stream::once(async { Err(not_for_writing()) }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(not_for_writing())
    }
}

fn inner_slice(bytes: &Bytes, wide: &Range<u64>, range: &Range<u64>) -> Bytes {
    let from = (range.start.min(wide.end) - wide.start) as usize;
    let to = (range.end.min(wide.end) - wide.start) as usize;
    bytes.slice(from.min(to)..to)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn sums_of(bytes: &[u8], step: usize) -> BlockSums {
        let mut summing = Summing::default();
        bytes.chunks(step).for_each(|piece| summing.sum_up(piece));
        summing.finish()
    }

    fn noise(n: usize) -> Vec<u8> {
        (0..n as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    }

    #[test]
    fn sums_do_not_depend_on_how_the_bytes_came() {
        let bytes = noise(300_000);
        let sums = sums_of(&bytes, 7);
        assert_eq!(sums, sums_of(&bytes, 100_000));
        assert_eq!(BlockSums::decode(&sums.encode(), 300_000), Some(sums.clone()));
        assert_eq!(BlockSums::decode(&sums.encode(), 400_000), None);
        assert_eq!(sums.first_damage(0, &bytes), None);
    }

    /// A file of more than 64 MiB has larger blocks, whose sums are those of their bytes.
    #[test]
    fn large_files_have_larger_blocks() {
        let bytes = noise((64 << 20) + 70_000);
        let sums = sums_of(&bytes, 1 << 20);
        assert_eq!(sums.shift, SHIFT_MIN + 1);
        assert_eq!(sums.first_damage(0, &bytes), None);
        assert_eq!(sums.sums.last(), Some(&crc32fast::hash(&bytes[512 << 17..])));
    }

    #[tokio::test]
    async fn every_read_of_a_damaged_block_fails_and_others_do_not() {
        let bytes = noise(200_000);
        let sums = Arc::new(sums_of(&bytes, 4096));
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let at = Path::from("t/f.parquet");
        let mut bad = bytes.clone();
        bad[70_000] ^= 4;
        store.put(&at, PutPayload::from(bad.clone())).await.unwrap();
        let file = CheckedFile::new(Arc::clone(&store), Arc::clone(&sums));
        assert_eq!(file.get_range(&at, 10..20).await.unwrap(), bytes[10..20]);
        let ranges = [5..9, 150_000..200_000, 0..1];
        let read = file.get_ranges(&at, &ranges).await.unwrap();
        assert_eq!(read[1], bytes[150_000..]);
        for range in [69_999..70_001, 65_536..65_537, 0..200_000] {
            let error = file.get_range(&at, range).await.unwrap_err();
            let error = Error::from(error);
            assert_eq!(error.sqlstate(), "XX001");
            assert_eq!(
                error.message(),
                "data file \"t/f.parquet\" is damaged at byte 65536: its checksum does not match"
            );
        }
        assert!(file.verify(&at).await.is_err());
        store.put(&at, PutPayload::from(bytes[..100_000].to_vec())).await.unwrap();
        let error = Error::from(file.get_range(&at, 90_000..110_000).await.unwrap_err());
        assert_eq!(error.message(), "data file \"t/f.parquet\" has 100000 bytes instead of 200000");
        store.delete(&at).await.unwrap();
        let error = Error::from(file.verify(&at).await.unwrap_err());
        assert_eq!(
            (error.sqlstate(), error.message()),
            ("XX001", "data file \"t/f.parquet\" is missing")
        );
    }
}
