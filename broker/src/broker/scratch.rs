//! Memory files for the netascii form of files.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

/// Bytes of all memory files at once: four of the largest.
const MAX_TOTAL: u64 = 4 * crate::wire::MAX_SCRATCH;

/// Shown as the name of the descriptor in /proc.
const NAME: &CStr = c"netascii";

/// MFD_NOEXEC_SEAL (linux/memfd.h): can never be executed. Linux 6.3 and later.
const NO_EXECUTION: MFdFlags = MFdFlags::from_bits_retain(8);

/// What memory files take of their common limit.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    total: u64,
}

/// A memory file that is in use.
#[derive(Debug)]
pub(super) struct Memory {
    file: OwnedFd,
    size: u64,
}

impl Scratch {
    /// An empty file of `size` bytes that can be written and never grow, for the worker, and what
    /// is to be given to [`Self::release`]. None if there is no place for it.
    pub(super) fn create(&mut self, size: u64) -> Option<(OwnedFd, Memory)> {
        let total = self
            .total
            .checked_add(size)
            .filter(|total| *total <= MAX_TOTAL)?;
        let file = sealed(size).ok()?;
        let granted = file.try_clone().ok()?;
        self.total = total;
        Some((granted, Memory { file, size }))
    }

    /// Takes a file's memory back, also from a captured worker that keeps its descriptor: what is
    /// cut off can not come back.
    pub(super) fn release(&mut self, memory: &Memory) {
        if ftruncate(&memory.file, 0).is_ok() {
            self.total = self.total.saturating_sub(memory.size);
        }
    }
}

/// A memory file that can never be executed, where the kernel has that.
pub(super) fn memory_file(name: &CStr, flags: MFdFlags) -> nix::Result<OwnedFd> {
    let flags = flags | MFdFlags::MFD_CLOEXEC;
    match memfd_create(name, flags | NO_EXECUTION) {
        Err(Errno::EINVAL) => memfd_create(name, flags),
        result => result,
    }
}

fn sealed(size: u64) -> nix::Result<OwnedFd> {
    let file = memory_file(NAME, MFdFlags::MFD_ALLOW_SEALING)?;
    ftruncate(&file, size.try_into().map_err(|_| Errno::EFBIG)?)?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;
    use crate::wire::MAX_SCRATCH;

    #[test]
    fn a_memory_file_can_be_written_and_never_grows() {
        let (file, _memory) = Scratch::default().create(1000).unwrap();
        let file = File::from(file);
        file.write_all_at(&[7; 1000], 0).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1000);
        assert!(file.write_all_at(&[7], 1000).is_err());
        assert!(file.set_len(1001).is_err());
    }

    #[test]
    fn memory_files_are_bounded_in_all() {
        let mut scratch = Scratch::default();
        let all: Vec<_> = (0..4)
            .map(|_| scratch.create(MAX_SCRATCH).unwrap())
            .collect();
        assert!(scratch.create(1).is_none());
        scratch.release(&all[0].1);
        assert!(scratch.create(MAX_SCRATCH).is_some());
        assert!(scratch.create(u64::MAX).is_none());
    }

    #[test]
    fn a_descriptor_that_is_kept_keeps_no_memory() {
        let mut scratch = Scratch::default();
        let (file, memory) = scratch.create(1 << 20).unwrap();
        let file = File::from(file);
        file.write_all_at(&[7; 1 << 20], 0).unwrap();
        assert!(file.metadata().unwrap().blocks() > 0);
        scratch.release(&memory);
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.blocks()), (0, 0));
        assert!(file.write_all_at(&[7], 0).is_err());
        assert!(file.set_len(1).is_err());
    }
}
