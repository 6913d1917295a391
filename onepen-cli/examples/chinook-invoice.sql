-- A customer of the Chinook shop buys two tracks.
--
--   onepen bench --script onepen-cli/examples/chinook-invoice.sql \
--                --db onepen-cli/examples/data/chinook.sqlite \
--                --invariant "SELECT count(*) FROM Invoice
--                             WHERE abs(Total - (SELECT sum(UnitPrice * Quantity) FROM InvoiceLine AS l
--                                                WHERE l.InvoiceId = Invoice.InvoiceId)) > 0.001"
--
-- The invariant: no invoice differs from the sum of its lines.

\set customer random(1, 59)
-- A few tracks sell most of the time.
\set first random_zipfian(1, 3503, 1.1)
\set second 1 + (:first + random(1, 3502)) % 3503
\set quantity random(1, 5)

BEGIN;
INSERT INTO Invoice (CustomerId, InvoiceDate, BillingCity, BillingCountry, Total)
  SELECT CustomerId, datetime('now'), City, Country, 0
  FROM Customer WHERE CustomerId = :customer
  RETURNING InvoiceId AS invoice \gset
INSERT INTO InvoiceLine (InvoiceId, TrackId, UnitPrice, Quantity)
  SELECT :invoice, TrackId, UnitPrice, :quantity
  FROM Track WHERE TrackId IN (:first, :second);
UPDATE Invoice
  SET Total = (SELECT sum(UnitPrice * Quantity) FROM InvoiceLine WHERE InvoiceId = :invoice)
  WHERE InvoiceId = :invoice;
COMMIT;
