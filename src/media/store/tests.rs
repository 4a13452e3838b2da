//! Objects in a directory: whole or not there.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

use super::*;

fn place() -> PathBuf {
    std::env::temp_dir().join(format!("usher-store-{}", Store::fresh_key().replace('/', "-")))
}

async fn all(store: &Store, key: &str, range: Range<u64>) -> Vec<u8> {
    let chunks: Vec<Bytes> = store.read(key, range).await.unwrap().try_collect().await.unwrap();
    chunks.concat()
}

#[tokio::test]
async fn an_object_is_there_when_it_is_whole_and_not_before() {
    let dir = place();
    let store = Store::local(&dir).unwrap();
    let key = Store::fresh_key();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    let mut writer = store.write(&key).await.unwrap();
    for piece in bytes.chunks(70_001) {
        writer.push(piece).await.unwrap();
    }
    assert!(matches!(store.read(&key, 0..1).await, Err(StoreError::Absent)));
    writer.finish().await.unwrap();
    assert_eq!(all(&store, &key, 0..3_000_000).await, bytes);
    assert_eq!(
        all(&store, &key, 1_048_570..1_500_001).await,
        &bytes[1_048_570..1_500_001]
    );
    store.remove(&key).await.unwrap();
    store.remove(&key).await.unwrap();
    assert!(matches!(store.read(&key, 0..1).await, Err(StoreError::Absent)));
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn what_is_given_up_leaves_nothing() {
    let dir = place();
    let store = Store::local(&dir).unwrap();
    let files = || {
        let all = std::fs::read_dir(&dir)
            .unwrap()
            .flat_map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap());
        all.count()
    };
    let mut writer = store.write(&Store::fresh_key()).await.unwrap();
    writer.push(&[0; 2_000_000]).await.unwrap();
    assert_eq!(files(), 1);
    drop(writer);
    for _ in 0..500 {
        if files() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(files(), 0);
    // What a crash left behind goes when it is old, and nothing else does.
    let key = Store::fresh_key();
    store.put(&key, Bytes::from_static(b"kept")).await.unwrap();
    std::fs::write(dir.join(&key[..2]).join("dead#1"), b"half").unwrap();
    assert_eq!(store.tidy().await.unwrap(), 0);
    assert_eq!(tidy(&dir, SystemTime::now() + Duration::from_secs(1)).unwrap(), 1);
    assert_eq!(all(&store, &key, 0..4).await, b"kept");
    std::fs::remove_dir_all(dir).unwrap();
}
