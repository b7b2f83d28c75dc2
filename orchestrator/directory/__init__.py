"""The directory of mentors, coordinators and activity types: reading its files and importing them."""
