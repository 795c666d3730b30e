"""`python spark_rows.py RUN INTO`: all rows of a run's tables as Spark reads them, without any setting."""

import pickle
import sys
from pathlib import Path


def main(run: str, into: str) -> None:
    from pyspark.sql import SparkSession  # an extra: the test that runs this file is skipped without it

    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    rows = {
        table.name: [row.asDict(recursive=True) for row in spark.read.parquet(str(table)).collect()]
        for table in Path(run).iterdir()
        if any(table.glob("*.parquet"))
    }
    Path(into).write_bytes(pickle.dumps(rows))
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
