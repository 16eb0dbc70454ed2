-- What an apply was when it was written: a bit that flips in its rows would have another one served.
ALTER TABLE applies ADD COLUMN sha256 TEXT NOT NULL DEFAULT ''; -- in hexadecimal; '' of those from before
