-- Hourly flights and delays of New York's three airports in 2013, from real departures in order of arrival.
-- A flight counts in the hour for which it was scheduled, and may arrive here up to three hours later.
CREATE STREAM flights (WATERMARK FOR scheduled AS scheduled - INTERVAL '3' HOUR)
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
