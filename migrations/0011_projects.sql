-- Whose are the definition files of an apply? Several repositories may be live on one server, each a project.
-- Portable SQL. Never edited once landed; a change is a new migration.

-- The definition files of all projects, verbatim.
CREATE TABLE project_files (
    apply_number BIGINT NOT NULL REFERENCES applies (number),
    project      TEXT   NOT NULL,             -- `default` where a repository names none
    path         TEXT   NOT NULL,
    content      TEXT   NOT NULL,
    PRIMARY KEY (apply_number, project, path)
);

INSERT INTO project_files (apply_number, project, path, content)
SELECT apply_number, 'default', path, content FROM definition_files;

DROP TABLE definition_files;
