//! The content of a JWE under its content key: authenticated decryption (RFC 7518 §5.2 and §5.3), then
//! inflation.
//!
//! Nothing is decrypted, unpadded or inflated before the whole tag is compared, in constant time.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use flate2::{Decompress, FlushDecompress, Status};

use super::algorithm::ContentEncryption;
use super::error::JweError;

/// The parts of a token that the content key protects.
pub(super) struct Ciphertext<'t> {
    /// The protected header in base64url, as in the token: the additional authenticated data.
    pub aad: &'t [u8],
    pub iv: Vec<u8>,
    pub text: Vec<u8>,
    pub tag: Vec<u8>,
}

impl ContentEncryption {
    /// Checks and decrypts. `None`, if the key, the IV or the tag has the wrong length, or the tag is wrong.
    pub(super) fn decrypt(self, key: &[u8], sealed: &Ciphertext<'_>) -> Option<Vec<u8>> {
        match self {
            Self::A128gcm => decrypt_gcm(&aead::AES_128_GCM, key, sealed),
            Self::A256gcm => decrypt_gcm(&aead::AES_256_GCM, key, sealed),
            Self::A128cbcHs256 => decrypt_cbc_hmac(&cipher::AES_128, hmac::HMAC_SHA256, key, sealed),
            Self::A256cbcHs512 => decrypt_cbc_hmac(&cipher::AES_256, hmac::HMAC_SHA512, key, sealed),
        }
    }
}

fn decrypt_gcm(aes: &'static aead::Algorithm, key: &[u8], sealed: &Ciphertext<'_>) -> Option<Vec<u8>> {
    let key = LessSafeKey::new(UnboundKey::new(aes, key).ok()?);
    let nonce = Nonce::try_assume_unique_for_key(&sealed.iv).ok()?;
    // A shorter tag is weaker; the token must not choose the length (RFC 7518 §5.3).
    if sealed.tag.len() != aes.tag_len() {
        return None;
    }
    let mut content = vec![0; sealed.text.len()];
    key.open_separate_gather(nonce, Aad::from(sealed.aad), &sealed.text, &sealed.tag, &mut content).ok()?;
    Some(content)
}

/// RFC 7518 §5.2.2.2. The first half of the key is for the HMAC, the second for AES; the tag is half the
/// HMAC.
fn decrypt_cbc_hmac(
    aes: &'static cipher::Algorithm,
    hash: hmac::Algorithm,
    key: &[u8],
    sealed: &Ciphertext<'_>,
) -> Option<Vec<u8>> {
    let (mac_key, aes_key) = key.split_at(key.len() / 2);
    let aes_key = UnboundCipherKey::new(aes, aes_key).ok()?;
    let iv: [u8; 16] = sealed.iv.as_slice().try_into().ok()?;

    let mut mac = hmac::Context::with_key(&hmac::Key::new(hash, mac_key));
    mac.update(sealed.aad);
    mac.update(&iv);
    mac.update(&sealed.text);
    mac.update(&(sealed.aad.len() as u64 * 8).to_be_bytes());
    let mac = mac.sign();
    let expected_tag = &mac.as_ref()[..mac.as_ref().len() / 2];
    verify_slices_are_equal(expected_tag, &sealed.tag).ok()?;

    let mut content = sealed.text.clone();
    let iv = DecryptionContext::Iv128(FixedLength::from(iv));
    let length = PaddedBlockDecryptingKey::cbc_pkcs7(aes_key).ok()?.decrypt(&mut content, iv).ok()?.len();
    content.truncate(length);
    Some(content)
}

/// Inflates a raw deflate stream (RFC 1951), writing no more than `most` bytes.
///
/// # Errors
/// [`JweError::TooLarge`], or [`JweError::Decryption`] if it is not exactly one deflate stream.
pub(super) fn inflate(deflated: &[u8], most: usize) -> Result<Vec<u8>, JweError> {
    // One byte more than allowed distinguishes "exactly full" from "too long"; the buffer never grows.
    let mut content = Vec::with_capacity(most + 1);
    let mut stream = Decompress::new(false);
    let status = stream.decompress_vec(deflated, &mut content, FlushDecompress::Finish);
    if content.len() > most {
        return Err(JweError::TooLarge { most });
    }
    match status {
        Ok(Status::StreamEnd) if stream.total_in() == deflated.len() as u64 => Ok(content),
        _ => Err(JweError::Decryption),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    fn deflate(content: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// RFC 7518 appendix B.1.
    fn rfc7518_b1() -> (Vec<u8>, Ciphertext<'static>) {
        let key = (0..32).collect();
        let sealed = Ciphertext {
            aad: b"The second principle of Auguste Kerckhoffs",
            iv: hex("1af38c2dc2b96ffdd86694092341bc04"),
            text: hex(concat!(
                "c80edfa32ddf39d5ef00c0b468834279a2e46a1b8049f792",
                "f76bfe54b903a9c9a94ac9b47ad2655c5f10f9aef71427e2",
                "fc6f9b3f399a221489f16362c703233609d45ac69864e332",
                "1cf82935ac4096c86e133314c54019e8ca7980dfa4b9cf1b",
                "384c486f3a54c51078158ee5d79de59fbd34d848b3d69550",
                "a67646344427ade54b8851ffb598f7f80074b9473c82e2db",
            )),
            tag: hex("652c3fa36b0a7c5b3219fab3a30bc1c4"),
        };
        (key, sealed)
    }

    fn hex(digits: &str) -> Vec<u8> {
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_cbc_example_of_rfc_7518_decrypts() {
        let (key, sealed) = rfc7518_b1();
        let content = ContentEncryption::A128cbcHs256.decrypt(&key, &sealed).unwrap();
        assert!(content.starts_with(b"A cipher system must not be required to be secret"));
        assert!(content.ends_with(b"without inconvenience"));
    }

    #[test]
    fn no_part_may_have_another_length() {
        let gcm_key = [7; 32];
        let mut text = b"content".to_vec();
        let key = LessSafeKey::new(UnboundKey::new(&aead::AES_256_GCM, &gcm_key).unwrap());
        let nonce = Nonce::assume_unique_for_key([9; 12]);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(b"header"), &mut text).unwrap();
        let gcm = Ciphertext { aad: b"header", iv: vec![9; 12], text, tag: tag.as_ref().to_vec() };
        let (cbc_key, cbc) = rfc7518_b1();
        for (enc, key, sealed) in [
            (ContentEncryption::A256gcm, &gcm_key[..], gcm),
            (ContentEncryption::A128cbcHs256, &cbc_key[..], cbc),
        ] {
            assert!(enc.decrypt(key, &sealed).is_some());
            assert!(enc.decrypt(&key[1..], &sealed).is_none());
            assert!(enc.decrypt(&[], &sealed).is_none());
            let Ciphertext { aad, iv, text, tag } = sealed;
            let with = |iv: &[u8], text: &[u8], tag: &[u8]| {
                let sealed = Ciphertext { aad, iv: iv.to_vec(), text: text.to_vec(), tag: tag.to_vec() };
                enc.decrypt(key, &sealed).is_some()
            };
            assert!(with(&iv, &text, &tag));
            for length in 0..tag.len() {
                assert!(!with(&iv, &text, &tag[..length]), "a tag of {length} bytes");
            }
            assert!(!with(&iv, &text, &[tag.clone(), vec![0]].concat()));
            for length in 0..iv.len() {
                assert!(!with(&iv[..length], &text, &tag), "an IV of {length} bytes");
            }
            assert!(!with(&[iv.clone(), vec![0]].concat(), &text, &tag));
            for length in 0..text.len() {
                assert!(!with(&iv, &text[..length], &tag), "a ciphertext of {length} bytes");
            }
        }
    }

    #[test]
    fn as_much_is_inflated_as_may_be_and_not_a_byte_more() {
        let full = vec![b'a'; 1000];
        assert_eq!(inflate(&deflate(&full), 1000), Ok(full.clone()));
        assert_eq!(inflate(&deflate(&full), 999), Err(JweError::TooLarge { most: 999 }));
    }

    #[test]
    fn only_one_whole_deflate_stream_is_inflated() {
        let whole = deflate(b"content, content, content");
        assert_eq!(inflate(&whole, 100).unwrap(), b"content, content, content");
        for broken in [&whole[..whole.len() - 1], &[whole.clone(), vec![0]].concat(), b"", b"\xff\xff"] {
            assert_eq!(inflate(broken, 100), Err(JweError::Decryption), "{broken:?}");
        }
    }
}
