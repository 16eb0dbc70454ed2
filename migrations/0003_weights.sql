-- The weights of versions, where `quern route` set them since the model's route was declared.
CREATE TABLE weights (
    apply_number BIGINT NOT NULL REFERENCES applies (number),
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    weight BIGINT NOT NULL,
    PRIMARY KEY (apply_number, model, version)
);
