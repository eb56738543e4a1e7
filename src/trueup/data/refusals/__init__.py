"""Rules for refusals, by language: who declines, what is declined, and whether help follows."""
