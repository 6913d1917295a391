-- What the same shop shows to who only looks: an album with its tracks.
--
--   onepen bench … --readers 2 --read-script onepen-cli/examples/chinook-look.sql

\set album random(1, 347)

SELECT t.Name, t.Milliseconds, t.UnitPrice, a.Title, r.Name
  FROM Track AS t
  JOIN Album AS a ON a.AlbumId = t.AlbumId
  JOIN Artist AS r ON r.ArtistId = a.ArtistId
  WHERE t.AlbumId = :album;
