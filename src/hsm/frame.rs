//! Frames: a length of four bytes, big-endian, and that many bytes of
//! postcard.

use std::io::{self, Read};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// The longest frame, in bytes. Both sides batch far below it; more than this
/// is not a long message but a broken stream.
pub(crate) const MAX_FRAME: usize = 4 << 20;

const HEADER: usize = 4;

/// Appends one frame. The vector grows at most once and before the first byte
/// is written, so no copy of a PIN is left behind in freed memory.
pub(crate) fn encode<T: Serialize + ?Sized>(batch: &T, out: &mut Vec<u8>) -> io::Result<()> {
    let len = postcard::experimental::serialized_size(batch).map_err(io::Error::other)?;
    if len > MAX_FRAME {
        return Err(io::Error::other(format!(
            "expected a frame of at most {MAX_FRAME} bytes, got {len}"
        )));
    }
    let header = u32::try_from(len).map_err(io::Error::other)?.to_be_bytes();
    let start = out.len();
    out.reserve(HEADER + len);
    out.extend_from_slice(&header);
    out.resize(start + HEADER + len, 0);
    postcard::to_slice(batch, &mut out[start + HEADER..]).map_err(io::Error::other)?;
    Ok(())
}

/// Reads one frame; `None` at the end of the stream between two frames.
pub(crate) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut header = [0; HEADER];
    if from.read(&mut header[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut header[1..])?;
    let mut body = Zeroizing::new(vec![0; checked_len(header)?]);
    from.read_exact(&mut body)?;
    decode(&body).map(Some)
}

/// Takes the first whole frame off `buffer`; `None` while it is incomplete.
pub(crate) fn take<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some(header) = buffer.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let end = HEADER + checked_len(*header)?;
    if buffer.len() < end {
        return Ok(None);
    }
    let value = decode(&buffer[HEADER..end])?;
    buffer.drain(..end);
    Ok(Some(value))
}

fn checked_len(header: [u8; HEADER]) -> io::Result<usize> {
    let len = u32::from_be_bytes(header) as usize;
    if len > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("expected a frame of at most {MAX_FRAME} bytes, got {len}"),
        ));
    }
    Ok(len)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    let (value, rest) = postcard::take_from_bytes(body)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    if !rest.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} bytes too many in a frame", rest.len()),
        ));
    }
    Ok(value)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_in_pieces() {
        let mut out = Vec::new();
        encode(&vec!["a", "bc"], &mut out).unwrap();
        encode(&vec!["d"], &mut out).unwrap();

        let mut buffer = Vec::new();
        let mut got: Vec<Vec<String>> = Vec::new();
        for byte in &out {
            buffer.push(*byte);
            got.extend(take::<Vec<String>>(&mut buffer).unwrap());
        }
        assert_eq!(got, [vec!["a", "bc"], vec!["d"]]);
        assert!(buffer.is_empty());

        let mut stream = out.as_slice();
        assert_eq!(read::<Vec<String>>(&mut stream).unwrap().unwrap(), got[0]);
        assert_eq!(read::<Vec<String>>(&mut stream).unwrap().unwrap(), got[1]);
        assert!(read::<Vec<String>>(&mut stream).unwrap().is_none());
    }

    #[test]
    fn a_huge_length_is_refused_before_memory_is_taken() {
        let mut stream = [0xff; 8].as_slice();
        let error = read::<Vec<String>>(&mut stream).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(take::<Vec<String>>(&mut vec![0xff; 8]).is_err());
    }

    #[test]
    fn a_cut_or_padded_frame_is_refused() {
        let mut out = Vec::new();
        encode(&7_u64, &mut out).unwrap();
        assert!(read::<u64>(&mut &out[..out.len() - 1]).is_err());

        out[3] += 1;
        out.push(0);
        assert!(read::<u64>(&mut out.as_slice()).is_err());
    }

    #[test]
    fn encoding_does_not_move_what_it_wrote() {
        let mut out = Vec::new();
        encode(&vec![7_u8; 1000], &mut out).unwrap();
        let exact = out.len();
        assert!(
            out.capacity() - exact < 64,
            "grown in steps: {}",
            out.capacity()
        );
    }
}
