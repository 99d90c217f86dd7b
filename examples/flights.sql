-- Hourly flights and delays of New York's three airports in 2013, from real departures in order of arrival.
-- A flight counts in the hour for which it was scheduled, however late it left: an exact watermark closes an hour when
-- none of the rows still to come can fall into it.
CREATE STREAM flights (WATERMARK FOR scheduled)
  STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet'
  OPTIONS ('partitioned_by' 'origin');

SELECT origin,
       window_start,
       count(*)                     AS flights,
       round(avg(dep_delay), 1)     AS delay,
       max(dep_delay)               AS worst
FROM flights
GROUP BY origin, tumble(scheduled, INTERVAL '1 hour')
EMIT FINAL;
