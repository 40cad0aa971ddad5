"""Operations on backup jobs: one file for each thing that happens to a job."""
