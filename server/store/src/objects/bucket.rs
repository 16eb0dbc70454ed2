//! How does Quern keep files of its own in a bucket of S3, Google Cloud Storage or Azure?
//!
//! Each is written once, under a name that no other has, and only where nothing has it: so a request that is sent again
//! changes nothing.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{Location, in_time, said};
use crate::error::{Error, Result};

/// A larger file is sent in parts.
const WHOLE_BYTES_MAX: u64 = 16 << 20;
/// What such a part has. S3 takes no more than ten thousand.
const PART_BYTES: usize = 16 << 20;

/// What all names of a store begin with, in a bucket.
#[derive(Debug)]
pub struct Bucket {
    location: Location,
    store: Arc<dyn ObjectStore>,
    /// Whether it does not know how to write an object only where there is none.
    overwrites: AtomicBool,
}

/// An object, without what is in it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name below the store's.
    pub path: String,
    /// How large it is.
    pub bytes: u64,
    /// When it was written, by the store's clock.
    pub modified: SystemTime,
}

impl Bucket {
    /// The store at `location`. Nothing is asked of it yet.
    ///
    /// # Errors
    /// Where the environment does not say enough.
    pub fn open(location: Location) -> Result<Bucket> {
        let store = location.store().map_err(|error| {
            Error::invalid(format!(
                "the store `{location}`: {}; who asks is told by the environment: {}",
                said(&error),
                location.credentials()
            ))
        })?;
        Ok(Bucket { location, store, overwrites: AtomicBool::new(false) })
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    fn path(&self, name: &str) -> Path {
        self.location.join(name).path
    }

    async fn asked<T>(
        &self,
        (name, what): (&str, &str),
        asked: impl Future<Output = object_store::Result<T>>,
    ) -> Result<Option<T>> {
        let failed = |said: String| {
            let (at, credentials) = (self.location.join(name), self.location.credentials());
            Error::busy(format!("`{at}` cannot be {what}")).because(format!(
                "{said}; the store and who asks are said by its connection, where it has one, or by the environment of this \
                 process: {credentials}"
            ))
        };
        match in_time(asked).await.map_err(failed)? {
            Ok(answer) => Ok(Some(answer)),
            Err(error @ object_store::Error::NotFound { .. }) if !is_whole_bucket(&said(&error)) => Ok(None),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(None),
            Err(error) => Err(failed(said(&error))),
        }
    }

    /// Writes a small object, over what is there.
    pub async fn write(&self, name: &str, bytes: Bytes) -> Result<()> {
        let (path, payload) = (self.path(name), PutPayload::from(bytes));
        self.asked((name, "written"), self.store.put(&path, payload)).await.map(drop)
    }

    /// Writes an object, unless there is one; says whether it did. A store that cannot tell writes it.
    pub async fn create(&self, name: &str, bytes: Bytes) -> Result<bool> {
        let (path, payload) = (self.path(name), PutPayload::from(bytes));
        let options = PutOptions::from(PutMode::Create);
        let put = async {
            if self.overwrites.load(Ordering::Relaxed) {
                return self.store.put(&path, payload).await;
            }
            match self.store.put_opts(&path, payload.clone(), options).await {
                Err(error) if cannot_create(&error) => {
                    self.overwrites.store(true, Ordering::Relaxed);
                    self.store.put(&path, payload).await
                }
                answer => answer,
            }
        };
        Ok(self.asked((name, "written"), put).await?.is_some())
    }

    /// Writes what is in `file`, from its beginning on, under a name that no other has.
    pub async fn upload(&self, name: &str, file: &mut File, bytes: u64) -> Result<()> {
        match bytes <= WHOLE_BYTES_MAX {
            true => self.create(name, whole(file, bytes)?).await.map(drop),
            false => self.in_parts_of(name, file).await,
        }
    }

    /// The same, over what is there.
    pub async fn replace(&self, name: &str, file: &mut File, bytes: u64) -> Result<()> {
        match bytes <= WHOLE_BYTES_MAX {
            true => self.write(name, whole(file, bytes)?).await,
            false => self.in_parts_of(name, file).await,
        }
    }

    async fn in_parts_of(&self, name: &str, file: &mut File) -> Result<()> {
        let part = || {
            let mut part = Vec::with_capacity(PART_BYTES);
            Read::by_ref(file).take(PART_BYTES as u64).read_to_end(&mut part)?;
            Ok(part.into())
        };
        self.in_parts(name, part).await
    }

    /// Writes an object of any size, over what is there.
    pub async fn put(&self, name: &str, mut bytes: Bytes) -> Result<()> {
        match bytes.len() as u64 <= WHOLE_BYTES_MAX {
            true => self.write(name, bytes).await,
            false => self.in_parts(name, || Ok(bytes.split_to(bytes.len().min(PART_BYTES)))).await,
        }
    }

    /// Writes an object in parts, up to one that is empty.
    async fn in_parts(&self, name: &str, mut next: impl FnMut() -> Result<Bytes>) -> Result<()> {
        let (path, what) = (self.path(name), (name, "written"));
        let lost = || Error::busy(format!("`{}` cannot be written", self.location.join(name)));
        let mut upload = self.asked(what, self.store.put_multipart(&path)).await?.ok_or_else(lost)?;
        let sent = async {
            loop {
                let part = next()?;
                if part.is_empty() {
                    break;
                }
                self.asked(what, upload.put_part(part.into())).await?.ok_or_else(lost)?;
            }
            self.asked(what, upload.complete()).await?.ok_or_else(lost)
        };
        let sent: Result<_> = sent.await;
        if let Err(error) = sent {
            // Parts that nobody puts together cost as much as others.
            let _ = in_time(upload.abort()).await;
            return Err(error);
        }
        Ok(())
    }

    /// What is in a small object; none where there is none.
    pub async fn read(&self, name: &str) -> Result<Option<Bytes>> {
        let path = self.path(name);
        let read = async { self.store.get(&path).await?.bytes().await };
        self.asked((name, "read"), read).await
    }

    /// Hands all parts of an object to `take`; says whether there is one.
    pub async fn download(&self, name: &str, take: &mut dyn Write) -> Result<bool> {
        let (path, what) = (self.path(name), (name, "read"));
        let Some(found) = self.asked(what, self.store.get(&path)).await? else { return Ok(false) };
        let mut parts = found.into_stream();
        while let Some(part) = self.asked(what, parts.try_next()).await?.flatten() {
            take.write_all(&part)?;
        }
        Ok(true)
    }

    /// Removes an object, where there is one.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        self.asked((name, "removed"), self.store.delete(&path)).await.map(drop)
    }

    /// What is known of an object without reading it; none where there is none.
    pub async fn head(&self, name: &str) -> Result<Option<Listed>> {
        let path = self.path(name);
        let found = self.asked((name, "read"), self.store.head(&path)).await?;
        Ok(found.map(|found| Listed {
            path: name.to_owned(),
            bytes: found.size,
            modified: found.last_modified.into(),
        }))
    }

    /// All objects of the store.
    pub async fn list(&self) -> Result<Vec<Listed>> {
        let prefix = &self.location.path;
        let mut found = self.store.list(Some(prefix));
        let mut listed = Vec::new();
        while let Some(object) = self.asked(("", "listed"), found.try_next()).await?.flatten() {
            let Some(rest) = object.location.prefix_match(prefix) else { continue };
            let path = rest.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            listed.push(Listed { path, bytes: object.size, modified: object.last_modified.into() });
        }
        Ok(listed)
    }
}

fn whole(file: &mut File, bytes: u64) -> Result<Bytes> {
    let mut content = Vec::with_capacity(bytes as usize);
    file.read_to_end(&mut content)?;
    Ok(content.into())
}

/// Whether a store does not know how to write an object only where there is none. Not all that speak S3 do.
fn cannot_create(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. })
        || said(error).contains("NotImplemented")
}

/// Whether what is missing is the bucket, and not an object in it.
fn is_whole_bucket(said: &str) -> bool {
    ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"].iter().any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    /// Speaks as much S3 as a store that does not know `If-None-Match`; says of each request whether it had that.
    async fn old_store() -> (String, mpsc::UnboundedReceiver<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, asks) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = vec![0; 1 << 16];
                let mut bytes = 0;
                while !request[..bytes].ends_with(b"content") {
                    bytes += socket.read(&mut request[bytes..]).await.unwrap();
                }
                let text = String::from_utf8_lossy(&request[..bytes]).to_lowercase();
                let refuses = text.contains("if-none-match");
                let body = "<Error><Code>NotImplemented</Code><Message>a header</Message></Error>";
                let answer = match refuses {
                    true => format!(
                        "HTTP/1.1 501 Not Implemented\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    ),
                    false => "HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 0\r\n\r\n".to_owned(),
                };
                let answer = answer.replacen("\r\n", "\r\nconnection: close\r\n", 1);
                socket.write_all(answer.as_bytes()).await.unwrap();
                asked.send(refuses).unwrap();
            }
        });
        (url, asks)
    }

    #[tokio::test]
    async fn a_store_that_cannot_create_overwrites() {
        let (url, mut asks) = old_store().await;
        let told = [
            ("AWS_ENDPOINT_URL", url),
            ("AWS_REGION", "r".to_owned()),
            ("AWS_ACCESS_KEY_ID", "k".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "s".to_owned()),
        ];
        let location = Location::parse_folder("s3://bucket/prefix").unwrap().told(&told);
        let bucket = Bucket::open(location).unwrap();
        assert!(bucket.create("a", Bytes::from_static(b"content")).await.unwrap());
        while asks.recv().await.unwrap() {}
        // What it does not know it is not asked again.
        assert!(bucket.create("b", Bytes::from_static(b"content")).await.unwrap());
        assert_eq!(asks.recv().await, Some(false));
    }
}
