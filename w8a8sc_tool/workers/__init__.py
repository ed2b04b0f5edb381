"""Worker processes: started fresh, called one method at a time, noticed when they die, ended with their parent.

pool      the processes; why they are neither forks nor multiprocessing's is said there
process   the loop inside one
tasks     independent tasks handed out until all are done
machine   how many processes cores and memory allow
progress  what a job says of its progress
"""
