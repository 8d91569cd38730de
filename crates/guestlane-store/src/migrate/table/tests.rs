//! Tests of `table`.

use super::*;

/// A migration would lose a column that a new format adds and this list omits.
#[test]
fn all_tables_and_columns_are_migrated() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = File::open(directory.path().join("store.db")).unwrap();
    crate::sqlite::migrate_schema(&mut file, directory.path()).unwrap();
    let mut tables = file
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .unwrap();
    let tables: Vec<String> = tables
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut moved: Vec<_> = TABLES
        .iter()
        .map(|table| table.name.to_owned())
        .chain(["maintenance_task".to_owned()])
        .collect();
    moved.sort();
    assert_eq!(tables, moved);
    for table in TABLES {
        let mut found = file
            .prepare("SELECT name, pk FROM pragma_table_info(?1)")
            .unwrap();
        let found = found.query_map([table.name], |row| Ok((row.get(0)?, row.get(1)?)));
        let found: Vec<(String, usize)> = found.unwrap().map(Result::unwrap).collect();
        let mut names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        let mut moved: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
        let key: Vec<_> = moved[..table.key].to_vec();
        names.sort_unstable();
        moved.sort_unstable();
        assert_eq!(names, moved, "{}", table.name);
        let mut keys: Vec<_> = found.iter().filter(|(_, place)| *place > 0).collect();
        keys.sort_by_key(|(_, place)| *place);
        assert_eq!(
            keys.iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>(),
            key,
            "{}",
            table.name
        );
    }
}
