-- The stream that the README's examples read.
CREATE STREAM flights (WATERMARK FOR scheduled AS scheduled - INTERVAL '3' HOUR)
  STORED AS PARQUET LOCATION 'testdata/nycflights/flights-*.parquet'
  OPTIONS ('partitioned_by' 'origin');
