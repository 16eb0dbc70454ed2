//! Which files are gone or have changed since it was noted what there was?

use super::*;
use crate::history::Compared;
use crate::made_of::MadeOf;

fn repository() -> Repository {
    let mut repository = Repository::new(Format::Csv, "rows");
    repository.declare("at", scalar(ScalarType::Timestamp));
    repository.declare("n", scalar(ScalarType::Int64));
    repository.file("rows/a.csv", "at,n\n1767225600000000,1\n");
    repository.file("rows/b.csv", "at,n\n1767225600000000,2\n");
    repository
}

/// What there is, through its bytes, and how many of the noted files went.
fn made_of(repository: &Repository, noted: &MadeOf) -> (MadeOf, u64) {
    let Compared { now, gone, .. } = repository.open().unwrap().made_of(noted).unwrap();
    assert_eq!(MadeOf::read(&now.write()).unwrap(), now);
    (now, gone)
}

#[test]
fn text_that_grows_by_whole_lines_is_the_same_and_any_other_is_not() {
    let repository = repository();
    let (first, gone) = made_of(&repository, &MadeOf::default());
    assert_eq!((first.files().len(), gone), (2, 0));
    assert_eq!(made_of(&repository, &first), (first.clone(), 0));
    for (text, gone) in [
        ("at,n\n1767225600000000,1\n1767225600000001,3\n", 0),
        // The same once more, in another file.
        ("at,n\n1767225600000000,1\n", 0),
        ("at,n\n1767225600000000,4\n", 1),
        ("at,n\n1767225600000000,4\n1767225600000001,3\n", 1),
        ("at,n\n", 1),
    ] {
        fs::remove_file(repository.folder.path().join("rows/a.csv")).unwrap();
        repository.file("rows/a.csv", text);
        assert_eq!(made_of(&repository, &first).1, gone, "{text}");
    }
    fs::remove_file(repository.folder.path().join("rows/a.csv")).unwrap();
    repository.file("rows/c.csv", "at,n\n1767225600000000,1\n");
    let (now, gone) = made_of(&repository, &first);
    assert_eq!((now.files().len(), gone), (2, 1));
    // A run that was cut short leaves both.
    assert_eq!(made_of(&repository, &first.union(&now)), (now, 1));
}

#[test]
fn text_that_grows_within_its_last_line_is_another() {
    let repository = repository();
    repository.file("rows/a.csv", "at,n\n1767225600000000,1");
    let (first, _) = made_of(&repository, &MadeOf::default());
    for (text, gone) in
        [("at,n\n1767225600000000,1\n1767225600000001,3", 0), ("at,n\n1767225600000000,12\n", 1)]
    {
        repository.file("rows/a.csv", text);
        assert_eq!(made_of(&repository, &first).1, gone, "{text}");
    }
    // Both states are in the head: only a file that has grown out of both is the same.
    repository.file("rows/a.csv", "at,n\n1767225600000000,1\n1767225600000001,3\n");
    let (second, _) = made_of(&repository, &first);
    repository.file("rows/a.csv", "at,n\n1767225600000000,1\n1767225600000001,4\n");
    assert_eq!(made_of(&repository, &first.union(&second)).1, 1);
}
